// The right pane: the page of a PDF with the passage boxed, or the text with it marked.

import { get, request } from "./api.js";
import { $, announce, h, iconButton, typing, words } from "./dom.js";
import { notice } from "./notice.js";
import { setBack, show as showPane } from "./panes.js";
import { indexer, marked } from "./text.js";

const AROUND = 20_000; // characters of text shown before and after the passage: a book is not drawn whole
const MORE = 50_000; // characters that are added when more is asked for

let shown = null; // {source, place, page, view, image}
let opener = null; // where the focus goes back to
let large = false; // pages at twice the width of the pane
let latest = 0; // of several that were asked for in haste, the last one is shown

/** Show a place: {document_id, page?, start?, end?}; `button` gets the focus back at the end. */
export async function open(place, button) {
  const turn = ++latest;
  shown = null;
  opener = button;
  showPane("source");
  entitle(place.title || place.document_id);
  $("source-tools").replaceChildren();
  $("source-body").replaceChildren(h("p", { class: "muted" }, "Opening …"));
  $("source-title").focus({ preventScroll: true });
  try {
    if (!(await load(place, turn))) return;
    const { page } = shown;
    await draw();
    announce(`The source is open: ${$("source-title").textContent}${page ? `, page ${page}` : ""}.`);
  } catch (error) {
    if (turn === latest) fail(error);
  }
}

/** Fetch the document of a place. False if something else was asked for meanwhile. */
async function load(place, turn) {
  const source = await get("source", { document_id: place.document_id });
  if (turn !== latest) return false;
  if (!holds(source, place)) {
    notice({ message: "The passage does not stand at its place in this document, which may have changed since." });
    place = { ...place, start: undefined, end: undefined };
  }
  const numbers = source.pages.map((other) => other.number);
  const page = numbers.includes(place.page) ? place.page : (numbers[0] ?? null);
  shown = { source, place, page, view: source.is_pdf && page !== null ? "page" : "text" };
  entitle(source.title || source.document_id);
  return true;
}

/** Whether the document says at a place what was found there; between passages its white space is not known. */
function holds(source, { start, end, quote, text = quote }) {
  const bare = (words) => words.replace(/\s+/g, "");
  const at = indexer(source.text);
  return text === undefined || bare(source.text.slice(at(start), at(end))) === bare(text);
}

/** A document that is no longer in the index is no longer shown, one that came in anew is; the focus stays where it is. */
export async function keep(documents, added) {
  if (!shown) return;
  const { place, page, view, source } = shown;
  const id = source.document_id;
  if (!documents.some((document) => document.id === id)) return clear();
  if (!added.has(id)) return;
  const turn = ++latest;
  try {
    if (!(await load({ ...place, page }, turn))) return;
    if (view === "text") shown.view = view;
    await draw();
  } catch (error) {
    if (turn === latest) notice(error);
  }
}

/** Close the source, and give the focus back. True if there was one. */
export function close() {
  if (!opener && !shown) return false;
  clear();
  showPane("conversation");
  const back = opener?.checkVisibility() ? opener : typing.matches ? $("question") : $("turns");
  back.focus();
  opener = null;
  return true;
}

setBack(() => close() || showPane("conversation"));

function clear() {
  latest++;
  shown = null;
  entitle("Source");
  $("source-tools").replaceChildren();
  $("source-body").replaceChildren(empty());
}

function entitle(text) {
  $("source-title").textContent = $("source-title").title = text; // a long one is cut: its tip has the rest
}

/** What is said before anything was opened. */
export const empty = () =>
  h(
    "div",
    { class: "empty" },
    h("p", {}, "Press a number in an answer: the place it comes from opens here."),
  );

const fail = (error) =>
  $("source-body").replaceChildren(
    h("div", { class: "error" }, h("p", {}, h("strong", {}, error.message)), h("p", {}, ...words(error.remedy ?? ""))),
  );

async function draw() {
  tools();
  if (shown.view === "text") return drawText();
  const turn = latest;
  const { source, place, page } = shown;
  $("source-body").setAttribute("aria-busy", "true");
  try {
    const [picture, boxes] = await Promise.all([image(source, page), rectangles(source, place, page)]);
    if (turn !== latest || shown?.page !== page || shown.view !== "page") return;
    $("source-body").replaceChildren(h("div", { class: large ? "sheet large" : "sheet" }, picture, ...boxes));
    ($("source-body").querySelector(".box") ?? picture).scrollIntoView({ block: boxes.length ? "center" : "start", inline: "center" });
  } finally {
    $("source-body").removeAttribute("aria-busy");
  }
}

// A canvas, since an <img> could neither carry the API key nor show a blob under our content policy.
async function image(source, page) {
  const answer = await request(`page/image?${new URLSearchParams({ document_id: source.document_id, page })}`);
  const bitmap = await createImageBitmap(await answer.blob());
  const label = `Page ${page} of ${source.title || source.document_id}`;
  const canvas = h("canvas", { role: "img", "aria-label": label, width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

async function rectangles(source, { document_id, start, end }, page) {
  const span = source.pages.find((other) => other.number === page);
  if (start == null || (span && (end <= span.start || span.end <= start))) return [];
  const found = await get("page/rectangles", { document_id, page, start, end });
  return found.rectangles.map(([x0, y0, x1, y1]) => {
    const box = h("div", { class: "box" });
    const [left, top, width, height] = [x0, y0, x1 - x0, y1 - y0].map((part) => `${100 * part}%`);
    Object.assign(box.style, { left, top, width, height }); // by script, which a strict policy allows
    return box;
  });
}

function drawText() {
  const { source, place, page } = shown;
  const at = indexer(source.text);
  const span = source.pages.find((other) => other.number === page);
  const [start, end] = [place.start ?? span?.start ?? 0, place.end ?? place.start ?? span?.start ?? 0];
  const body = $("source-body");
  let from = Math.max(0, start - AROUND);
  let to = end + AROUND;
  const nodes = marked(source.text.slice(at(from), at(to)), [[start - from, end - from, "place"]]);
  const text = h("div", { class: "text", dir: "auto" }, ...nodes);
  const before = more("… Show the text before this", () => {
    const below = body.scrollHeight - body.scrollTop;
    text.prepend(source.text.slice(at(Math.max(0, from - MORE)), at(from)));
    from = Math.max(0, from - MORE);
    offer();
    body.scrollTop = body.scrollHeight - below; // what was read stays where it is
  });
  const after = more("Show more of the text …", () => {
    text.append(source.text.slice(at(to), at(to + MORE)));
    to += MORE;
    offer();
  });
  const offer = () => {
    const focused = document.activeElement;
    [before.hidden, after.hidden] = [from === 0, at(to) >= source.text.length];
    if (focused.hidden && body.contains(focused)) body.focus({ preventScroll: true });
  };
  offer();
  body.replaceChildren(before, text, after);
  const mark = body.querySelector("mark");
  if (mark) mark.scrollIntoView({ block: "center" });
  else body.scrollTop = 0;
}

const more = (label, show) => {
  const act = () => {
    show();
    announce("More of the text is shown.");
  };
  return h("button", { type: "button", class: "more", onclick: act }, label);
};

function tools() {
  const { source, page, view } = shown;
  const numbers = source.pages.map((other) => other.number);
  const index = numbers.indexOf(page);
  const turnTo = (step) => {
    act(() => (shown.page = numbers[index + step]), step < 0 ? "Page before" : "Next page");
    announce(`Page ${shown.page} of ${numbers.at(-1)}.`);
  };
  const tool = (name, label, step) =>
    iconButton(name, label, () => turnTo(step), { disabled: numbers[index + step] === undefined });
  const parts = [];
  if (view === "page")
    parts.push(
      tool("back", "Page before", -1),
      h("span", { class: "muted" }, `Page ${page} of ${numbers.at(-1)}`),
      tool("on", "Next page", 1),
      iconButton("zoom", "Larger", () => act(() => (large = !large), "Larger"), { "aria-pressed": String(large) }),
    );
  if (source.is_pdf) {
    const other = view === "page" ? "text" : "page";
    const turn = () => act(() => (shown.view = other), `Show the ${view}`);
    parts.push(h("button", { type: "button", onclick: turn, "aria-label": `Show the ${other}` }, other === "text" ? "Text" : "Page"));
  }
  $("source-tools").replaceChildren(...parts, iconButton("close", "Close the source", close));
}

// The tools are made anew each time: the focus goes to the one of the same name.
async function act(change, name) {
  change();
  try {
    const drawn = draw();
    const same = [...$("source-tools").querySelectorAll("button")].find((b) => b.ariaLabel === name);
    (same?.disabled ? $("source-title") : (same ?? $("source-title"))).focus({ preventScroll: true });
    await drawn;
  } catch (error) {
    notice(error);
  }
}
