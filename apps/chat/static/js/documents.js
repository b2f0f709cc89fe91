// The left pane: files on their way into the index, and the documents that are in it.

import { ApiError, get, request } from "./api.js";
import { ask } from "./dialog.js";
import { $, announce, h, iconButton, plural, rows, words } from "./dom.js";
import { notice } from "./notice.js";
import { show as showPane } from "./panes.js";
import { upload } from "./upload.js";

const POLL = 500; // milliseconds between looks at the jobs, while one is at work
const TOO_LARGE = 413;
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
const ours = new Set(); // of these, the ones that were sent from here
const dismissed = new Set();
let timer = null;
let failing = false; // whether the last look met no server

/** Start: `onOpen(document, button)` shows one, `onChange(documents, added)` learns of the list, and of ids that came in anew. */
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
  addEventListener("beforeunload", (event) => sending.some(({ state }) => state === "sending") && event.preventDefault());
}

/** The largest file that the server takes. */
export const setLimit = (megabytes) => (limit = megabytes ?? Infinity);

/** Look at the server's list, and again while it works on something. */
export async function refresh() {
  clearTimeout(timer);
  let pause = POLL;
  try {
    const found = await get("documents");
    const ended = found.jobs.filter(hasEnded);
    jobs = found.jobs;
    ended.forEach(tell);
    drawDocuments(found.documents);
    changed(found.documents, new Set(ended.map((job) => job.document_id)));
    failing = false;
  } catch (error) {
    if (!failing) notice(error);
    failing = true;
    pause = 20 * POLL;
  }
  drawJobs();
  if (jobs.some((job) => ACTIVE.has(job.state))) timer = setTimeout(refresh, pause);
}

async function add(files) {
  showPane("documents"); // on a small screen: it shows how far they are
  const added = files.map((file) => ({ id: crypto.randomUUID?.() ?? `${Math.random()}`, name: file.name, file }));
  sending = [...sending, ...added];
  await sendAll(added);
}

async function sendAll(added) {
  for (const job of added) Object.assign(job, { state: "sending", part: null, message: "", can_send: false });
  drawJobs();
  for (const job of added) {
    try {
      if (job.file.size > limit * 1e6)
        throw new ApiError(`It is larger than ${limit} MB.`, "Split it, or raise max_upload_mb in the server's settings.", TOO_LARGE);
      const taken = await upload(job.file, (part) => {
        job.part = part;
        drawJobs();
      });
      for (const { id } of taken) ours.add(id);
      sending = sending.filter((other) => other !== job);
      await refresh();
    } catch (error) {
      const message = [error.message, error.remedy].filter(Boolean).join(" ");
      Object.assign(job, { state: "failed", message, can_send: error.status !== TOO_LARGE });
      tell(job);
      drawJobs();
    }
  }
}

/** Whether a job has ended since the last look. What had ended before the page was opened is no news. */
function hasEnded(job) {
  const before = jobs.find((other) => other.id === job.id);
  return !ACTIVE.has(job.state) && (before ? before.state !== job.state : ours.has(job.id));
}

const tell = (job) =>
  announce(job.state === "done" ? `${job.name} was added.` : `${job.name}: ${WORDS[job.state] ?? job.state}. ${said(job)}`);

function drawJobs() {
  const shown = [...sending, ...jobs].filter((job) => (job.state !== "done" || job.message) && !dismissed.has(job.id));
  $("uploads").hidden = !shown.length;
  rows($("uploads"), shown, { key: ({ id }) => id, shows: drawing, make: jobRow });
  const ended = shown.filter((job) => !ACTIVE.has(job.state) && !job.can_retry);
  $("dismiss").hidden = ended.length < 2;
  $("dismiss").onclick = () => dismiss(ended);
}

async function dismiss(ended) {
  for (const job of ended) dismissed.add(job.id);
  sending = sending.filter((job) => !dismissed.has(job.id));
  drawJobs();
  $("choose").focus();
  for (const job of ended.filter((one) => !one.file)) {
    try {
      await request(`jobs/${job.id}`, { method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) notice(error); // the server remembers only so many: it has forgotten this one itself
    }
  }
}

/** A file that the server did not get, once more. */
function sendAgain(job) {
  sendAll([job]);
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
const said = ({ name, message = "" }) => (message.startsWith(`${name} `) ? message.slice(name.length + 1) : message);

const part = (job) => job.part ?? (job.state === "encoding" && job.total ? job.done / job.total : null);
const drawing = (job) => JSON.stringify([job.name, job.state, part(job), job.message, job.can_retry]);

function jobRow(job) {
  const counted = job.state === "encoding" && job.total ? ` ${job.done} of ${job.total}` : "";
  const active = ACTIVE.has(job.state);
  const bar = active && job.state !== "queued";
  return h(
    "li",
    { class: `job ${job.state}` },
    h("span", { class: "name", dir: "auto" }, job.name),
    h("span", { class: "state" }, (WORDS[job.state] ?? job.state) + counted),
    bar ? h("progress", { max: 1, value: part(job), "aria-label": `${job.name}: ${WORDS[job.state]}` }) : null,
    job.message && !active ? h("span", { class: "message", dir: "auto" }, ...words(said(job))) : null,
    job.can_retry ? h("button", { type: "button", onclick: () => decide(job, "/retry", "POST") }, "Try again") : null,
    job.can_send && !active ? h("button", { type: "button", onclick: () => sendAgain(job) }, "Try again") : null,
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
  rows(list, documents, { key: ({ id }) => id, shows: JSON.stringify, make: documentRow });
}

function documentRow(document) {
  const name = document.title || document.id;
  const size = document.pages ? plural(document.pages, "page") : plural(document.chunks, "passage");
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "row", title: document.id, onclick: (event) => open(document, event.currentTarget) },
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
