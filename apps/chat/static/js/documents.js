// The left pane: files on their way into the index, and the documents that are in it.

import { ApiError, get, request } from "./api.js";
import { ask } from "./dialog.js";
import { $, announce, h, iconButton, notice, plural, words } from "./dom.js";
import { show as showPane } from "./panes.js";
import { upload } from "./upload.js";

const POLL = 500; // milliseconds between looks at the jobs, while one is at work
const ACTIVE = new Set(["sending", "queued", "reading", "encoding"]);
const WORDS = {
  sending: "Sending",
  queued: "Waiting",
  reading: "Reading",
  encoding: "Encoding",
  done: "Added",
  unchanged: "Already here, unchanged",
  failed: "Not added",
};

let limit = Infinity; // megabytes
let open = () => {};
let changed = () => {};
let sending = []; // jobs of ours that the server does not know yet, or has refused
let jobs = []; // the server's
const dismissed = new Set();
let timer = null;

/** Start: `onOpen(document)` shows one, `onChange(documents)` learns of the list. */
export function start({ onOpen, onChange }) {
  open = onOpen;
  changed = onChange;
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    add([...$("files").files]);
    $("files").value = ""; // the same file can be chosen again after a failure
  });
  const body = document.body;
  body.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    body.classList.add("dragging");
  });
  body.addEventListener("dragleave", (event) => event.relatedTarget || body.classList.remove("dragging"));
  body.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    body.classList.remove("dragging");
    add([...event.dataTransfer.files]);
  });
}

/** The largest file that the server takes. */
export const setLimit = (megabytes) => (limit = megabytes ?? Infinity);

/** Look at the server's list, and again while it works on something. */
export async function refresh() {
  clearTimeout(timer);
  let pause = POLL;
  try {
    const found = await get("documents");
    for (const job of found.jobs) told(job);
    jobs = found.jobs;
    drawDocuments(found.documents);
    changed(found.documents);
  } catch (error) {
    notice(error);
    pause = 20 * POLL;
  }
  drawJobs();
  if (jobs.some((job) => ACTIVE.has(job.state))) timer = setTimeout(refresh, pause);
}

async function add(files) {
  showPane("documents"); // on a small screen: it shows how far they are
  const added = files.map((file) => ({ id: crypto.randomUUID?.() ?? `${Math.random()}`, name: file.name, file }));
  for (const job of added) job.state = "sending";
  sending = [...sending, ...added];
  drawJobs();
  for (const job of added) {
    try {
      if (job.file.size > limit * 1e6)
        throw new ApiError(`It is larger than ${limit} MB.`, "Split it, or raise max_upload_mb in the server's settings.");
      await upload(job.file, (part) => {
        job.part = part;
        drawJobs();
      });
      sending = sending.filter((other) => other !== job);
      await refresh();
    } catch (error) {
      Object.assign(job, { state: "failed", message: [error.message, error.remedy].filter(Boolean).join(" ") });
      announce(`${job.name}: not added. ${job.message}`);
      drawJobs();
    }
  }
}

function told(job) {
  const before = jobs.find((other) => other.id === job.id);
  if (ACTIVE.has(job.state) || before?.state === job.state) return;
  if (job.state === "done") announce(`${job.name} was added.`);
  else if (before) announce(`${job.name}: ${WORDS[job.state] ?? job.state}. ${job.message ?? ""}`);
}

function drawJobs() {
  const shown = [...sending, ...jobs].filter((job) => (job.state !== "done" || job.message) && !dismissed.has(job.id));
  // Rows are kept while their job goes on, so that focus and progress bars do not jump.
  const list = $("uploads");
  const old = new Map([...list.children].map((row) => [row.dataset.job, row]));
  const rows = shown.map((job) => {
    const row = old.get(job.id);
    return row?.dataset.drawn === drawing(job) ? row : jobRow(job);
  });
  if (rows.length !== list.children.length || rows.some((row) => !row.isConnected)) list.replaceChildren(...rows);
  list.hidden = !shown.length;
  const ended = shown.filter((job) => !ACTIVE.has(job.state) && !job.can_retry);
  $("dismiss").hidden = ended.length < 2;
  $("dismiss").onclick = () => dismiss(ended);
}

function dismiss(ended) {
  for (const job of ended) dismissed.add(job.id);
  drawJobs();
  $("choose").focus();
}

/** A file that the server has kept although it failed: once more, or not at all. */
async function decide(job, path, method) {
  try {
    await request(`jobs/${job.id}${path}`, { method });
  } catch (error) {
    notice(error);
  }
  await refresh();
  $("choose").focus();
}

/** What a server says of a file, without the file's name, which stands above it. */
const said = ({ name, message }) => (message.startsWith(`${name} `) ? message.slice(name.length + 1) : message);

const part = (job) => job.part ?? (job.state === "encoding" && job.total ? job.done / job.total : null);
const drawing = (job) => [job.state, part(job), job.message].join("|");

function jobRow(job) {
  const counted = job.state === "encoding" && job.total ? ` ${job.done} of ${job.total}` : "";
  const active = ACTIVE.has(job.state);
  const bar = active && job.state !== "queued";
  return h(
    "li",
    { class: `job ${job.state}`, "data-job": job.id, "data-drawn": drawing(job) },
    h("span", { class: "name", dir: "auto" }, job.name),
    h("span", { class: "state" }, (WORDS[job.state] ?? job.state) + counted),
    bar ? h("progress", { max: 1, value: part(job), "aria-label": `${job.name}: ${WORDS[job.state]}` }) : null,
    job.message && !active ? h("span", { class: "message", dir: "auto" }, ...words(said(job))) : null,
    job.can_retry ? h("button", { type: "button", onclick: () => decide(job, "/retry", "POST") }, "Try again") : null,
    active ? null : ending(job),
  );
}

const ending = (job) =>
  job.can_retry
    ? iconButton("bin", `Remove ${job.name}`, () => decide(job, "", "DELETE"))
    : iconButton("close", `Dismiss ${job.name}`, () => dismiss([job]));

function drawDocuments(documents) {
  const list = $("document-list");
  list.hidden = !documents.length;
  $("drop").classList.toggle("small", documents.length > 0);
  const drawn = JSON.stringify(documents);
  if (list.drawn === drawn) return; // the focus stays where it is
  list.drawn = drawn;
  list.replaceChildren(...documents.map((document) => documentRow(document)));
}

function documentRow(document) {
  const name = document.title || document.id;
  const size = document.pages ? plural(document.pages, "page") : plural(document.chunks, "passage");
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "row", title: document.id, onclick: () => open(document) },
      h("span", { class: "name", dir: "auto" }, name),
      h("span", { class: "muted" }, name === document.id ? size : `${document.id} · ${size}`),
    ),
    iconButton("bin", `Delete ${name}`, () => drop(document, name)),
  );
}

async function drop(document, name) {
  const sure = await ask({
    title: "Delete this document?",
    text: `“${name}” is removed from the index (${plural(document.chunks, "passage")}). Answers will no longer quote it.`,
    ok: "Delete",
    danger: true,
  });
  if (!sure) return;
  try {
    await request(`documents?${new URLSearchParams({ document_id: document.id })}`, { method: "DELETE" });
    announce(`${name} was deleted.`);
  } catch (error) {
    notice(error);
  }
  await refresh();
  $("choose").focus();
}
