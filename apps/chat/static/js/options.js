// The search options above the question: mode, document, number of passages, weights.

import { $, h } from "./dom.js";
import { keep, stored } from "./storage.js";

const KEY = "m3rag.options";
const NONE = { mode: "", within: "", k: "", weighing: "", weights: {} };
const MODES = {
  all: "all three",
  dense: "meaning (dense)",
  lexical: "words (lexical)",
  colbert: "word by word (ColBERT)",
  "dense+lexical": "meaning and words",
  bm25: "words (BM25)",
  "dense+bm25": "meaning and BM25",
};
const LEGS = { dense: "dense", lexical: "lexical", colbert: "ColBERT", bm25: "BM25" };

let chosen = stored(KEY, NONE);
let status = { modes: [], legs: [], default_mode: "all" };

/** Fill the controls from the server's status. */
export function setStatus(value) {
  status = value;
  $("mode").replaceChildren(
    h("option", { value: "" }, `default: ${MODES[status.default_mode] ?? status.default_mode}`),
    ...status.modes.map((mode) => h("option", { value: mode }, MODES[mode] ?? mode)),
  );
  $("weights").replaceChildren($("weights").firstElementChild, ...status.legs.map(slider));
  draw();
}

/** Offer the documents to search within. */
export function setDocuments(documents) {
  $("within").replaceChildren(
    h("option", { value: "" }, "all documents"),
    ...documents.map((document) => h("option", { value: document.id }, document.title || document.id)),
  );
  draw();
}

/** What is sent with a question: only what differs from the server's own settings. */
export function searchOptions() {
  const found = {};
  if (chosen.mode) found.mode = chosen.mode;
  if (chosen.within) found.filter = { document_id: chosen.within };
  if (chosen.k) found.k = Number(chosen.k);
  if (chosen.weighing && !chosen.mode.includes("bm25")) found.weights = ["dense", "lexical", "colbert"].map((leg) => weight(leg)).join("/");
  return found;
}

const weight = (leg) => (status.legs.includes(leg) ? Number(chosen.weights[leg] ?? 0.5) : 0);

function slider(leg) {
  const said = h("output", {}, "");
  const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, "data-leg": leg, oninput: read });
  input.setAttribute("aria-label", `Weight of ${LEGS[leg] ?? leg}`); // its number is no part of its name
  return h("label", { class: "weight" }, LEGS[leg] ?? leg, input, said);
}

function read() {
  const k = $("k").valueAsNumber;
  const weights = Object.fromEntries([...$("weights").querySelectorAll("input")].map((i) => [i.dataset.leg, i.value]));
  chosen = {
    mode: $("mode").value,
    within: $("within").value,
    k: Number.isInteger(k) ? String(Math.min(Math.max(k, 1), 50)) : "",
    weighing: $("weighing").value,
    weights,
  };
  keep(KEY, chosen);
  draw();
}

function draw() {
  for (const name of ["mode", "within", "weighing"]) {
    $(name).value = chosen[name];
    // What was chosen is gone (a document deleted): a select without a value would mean nothing.
    if ($(name).selectedIndex < 0 && $(name).options.length) $(name).value = chosen[name] = "";
  }
  if (document.activeElement !== $("k")) $("k").value = chosen.k;
  $("weights").hidden = !chosen.weighing;
  for (const input of $("weights").querySelectorAll("input")) {
    input.value = weight(input.dataset.leg);
    input.nextElementSibling.textContent = weight(input.dataset.leg).toFixed(2);
  }
  const within = $("within").selectedOptions[0];
  const parts = [
    chosen.mode && (MODES[chosen.mode] ?? chosen.mode),
    chosen.within && within && `within ${within.textContent}`,
    chosen.k && `${chosen.k} passages`,
    searchOptions().weights && `weights ${searchOptions().weights}`,
  ].filter(Boolean);
  $("options-said").textContent = parts.join(", ");
  $("reset").disabled = !parts.length;
}

for (const name of ["mode", "within", "weighing", "k"]) $(name).addEventListener("change", read);
$("k").addEventListener("blur", draw);
$("reset").addEventListener("click", () => {
  chosen = { ...NONE, weights: {} };
  keep(KEY, chosen);
  draw();
});
