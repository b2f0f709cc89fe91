// The passages an answer was made from: scores of each leg as bars, and the words that matched.

import { post } from "./api.js";
import { h, plural } from "./dom.js";
import { notice } from "./notice.js";
import { marked } from "./text.js";

const LEGS = [
  ["dense", "dense", "meaning of the whole passage: cosine, at most 1"],
  ["lexical", "lexical", "shared words, by weight: 0 is none"],
  ["colbert", "ColBERT", "word by word: mean of best cosines, at most 1"],
  ["bm25", "BM25", "shared words, by rarity: 0 is none"],
];
const SHOWN = { none: "off", lexical: "words (lexical)", colbert: "word by word (ColBERT)" };

let number = 0; // radio groups need names of their own

// Which passages are cut depends on the width, and is known once they are seen.
const sizes = new ResizeObserver((changes) => changes.forEach(({ target }) => target.fit()));

/** A closed list of hits, `{element, cite}`; `open(hit)` shows one in its source, `cite(citations)` says which are cited. */
export function hitsBlock({ hits, question, open }) {
  const list = h("ol", { class: "hits" });
  const unbounded = { lexical: 0, bm25: 0 };
  for (const leg of Object.keys(unbounded)) unbounded[leg] = Math.max(...hits.map((hit) => hit.scores?.[leg] ?? 0));
  const rows = hits.map((hit) => hitRow(hit, { unbounded, open }));
  list.append(...rows.map((row) => row.element));
  const name = `highlight-${++number}`;
  const choose = (leg) => highlight(rows, leg, question);
  const radios = Object.entries(SHOWN).map(([leg, label]) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name, value: leg, checked: leg === "none", onchange: () => choose(leg) }),
      h("span", {}, label),
    ),
  );
  const element = h(
    "details",
    { class: "considered" },
    h("summary", {}, `${plural(hits.length, "passage")} considered`),
    h("fieldset", { class: "choice" }, h("legend", {}, "Highlight matches"), ...radios),
    list,
  );
  const cite = (citations) => {
    for (const { hit, cited } of rows) {
      const numbers = citations.filter((one) => one.chunk_id === hit.chunk_id).map(({ number }) => `[${number}]`);
      cited.textContent = numbers.length ? `cited as ${numbers.join(" ")}` : "";
    }
  };
  return { element, cite };
}

function hitRow(hit, { unbounded, open }) {
  const text = h("p", { class: "passage", dir: "auto" }, hit.text);
  const whole = h("button", { type: "button", class: "link", "aria-expanded": "false", hidden: true }, "Show all of it");
  text.fit = () => (whole.hidden = !text.classList.contains("whole") && text.scrollHeight <= text.clientHeight + 1);
  sizes.observe(text);
  whole.addEventListener("click", () => {
    const open = text.classList.toggle("whole");
    whole.setAttribute("aria-expanded", String(open));
    whole.textContent = open ? "Show less" : "Show all of it";
  });
  const place = [hit.page && `page ${hit.page}`, ...(hit.headings ?? []).slice(-1)].filter(Boolean).join(" · ");
  const cited = h("span", { class: "cited" });
  const element = h(
    "li",
    {},
    h(
      "div",
      { class: "hit-top" },
      h(
        "button",
        { type: "button", class: "link", onclick: (event) => open(hit, event.currentTarget) },
        h("bdi", {}, hit.title || hit.document_id),
      ),
      h("span", { class: "muted", dir: "auto" }, place),
      cited,
    ),
    h("dl", { class: "bars" }, ...LEGS.flatMap((leg) => bar(leg, hit, unbounded))),
    text,
    whole,
  );
  return { hit, text, cited, element };
}

function bar([leg, label, meaning], hit, unbounded) {
  const score = hit.scores?.[leg];
  if (score == null) return [];
  const part = Math.max(0, Math.min(1, leg in unbounded ? score / (unbounded[leg] || 1) : score));
  const fill = h("span", { class: `fill ${leg}` });
  fill.style.width = `${100 * part}%`;
  const rank = hit.ranks?.[leg];
  return [
    h("dt", { title: meaning }, label),
    h(
      "dd",
      {},
      h("span", { class: "track", "aria-hidden": "true" }, fill),
      h("span", { class: "score" }, score.toFixed(3)),
      rank ? h("span", { class: "rank muted" }, `rank ${rank}`) : null,
    ),
  ];
}

async function highlight(rows, leg, question) {
  await Promise.all(
    rows.map(async (row) => {
      row.leg = leg;
      row.text.classList.remove("waiting");
      if (leg === "none") return row.text.replaceChildren(row.hit.text);
      try {
        row.found ??= post("highlights", { query: question, chunk_id: row.hit.chunk_id });
        row.text.classList.add("waiting");
        const found = await row.found;
        if (row.leg !== leg) return; // another was chosen meanwhile
        row.text.classList.remove("waiting");
        row.text.replaceChildren(
          ...marked(row.hit.text, found[leg].map(([start, end, strength]) => [start, end, `match strength-${strength}`])),
        );
        row.text.fit(); // bold words may need a line more
      } catch (error) {
        row.found = null;
        row.text.classList.remove("waiting");
        notice(error);
      }
    }),
  );
}
