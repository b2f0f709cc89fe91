// One question and its answer on the page. Elements that stay (citations, passages) are made once,
// so that a stream of words moves neither the focus nor what was unfolded.

import { request } from "./api.js";
import { announce, h, iconButton, notice, words } from "./dom.js";
import { hitsBlock } from "./hits.js";
import { prose } from "./prose.js";

/** The view of a turn: `{element, draw}`; `actions` are `open(place, button)`, `again()` and `changed()`. */
export function turnView(turn, actions) {
  const answer = h("div", { class: "answer" });
  const foot = h("div", { class: "foot" });
  const element = h(
    "article",
    { class: "turn", "aria-label": `Question: ${turn.question}` },
    h("p", { class: "question", dir: "auto" }, turn.question),
    answer,
    foot,
  );
  let passages = null;
  const draw = () => {
    element.dataset.state = turn.state;
    element.setAttribute("aria-busy", String(turn.state === "streaming"));
    answer.classList.toggle("unanswered", turn.answered === false);
    answer.replaceChildren(...prose(turn.answer, (number) => citation(turn, number, actions)), ...state(turn, actions));
    if (turn.state !== "streaming" || !passages) {
      const open = passages?.open;
      const cited = new Map();
      for (const { chunk_id: id, number } of turn.citations) cited.set(id, [...(cited.get(id) ?? []), number]);
      const question = turn.standalone || turn.question;
      passages = turn.hits.length ? hitsBlock({ hits: turn.hits, question, cited, open: actions.open }) : null;
      if (passages) passages.open = Boolean(open);
      foot.replaceChildren(...[turn.state === "done" ? tools(turn, actions) : null, passages].filter(Boolean));
    }
  };
  draw();
  return { element, draw };
}

function citation(turn, number, actions) {
  const found = turn.citations.find((c) => c.number === number);
  if (!found || turn.state === "streaming") return null;
  const place = `${found.title || found.document_id}${found.page ? `, page ${found.page}` : ""}`;
  const label = `Source ${number}: ${place}`;
  const open = (event) => actions.open(found, event.currentTarget);
  return h("button", { type: "button", class: "cite", "aria-label": label, title: place, onclick: open }, String(number));
}

function state(turn, actions) {
  if (turn.state === "streaming")
    return turn.answer ? [] : [h("p", { class: "muted waiting" }, turn.hits.length ? "Writing …" : "Searching …")];
  if (turn.state === "stopped") return [h("p", { class: "muted" }, "Stopped."), again(actions)];
  if (turn.state !== "failed") return [];
  const box = h("div", { class: "error" }, h("p", {}, h("strong", {}, turn.error?.message ?? "It failed.")));
  if (turn.error?.remedy) box.append(h("p", {}, ...words(turn.error.remedy)));
  box.append(again(actions));
  return [box];
}

const again = (actions) => h("button", { type: "button", onclick: actions.again }, "Ask again");

function tools(turn, actions) {
  const box = h("div", { class: "tools" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(turn.answer);
      announce("Copied.");
      const done = h("span", { class: "muted" }, "Copied");
      box.append(done);
      setTimeout(() => done.remove(), 2000);
    } catch {
      notice({ message: "The browser did not allow copying.", remedy: "Mark the text and press Ctrl+C." });
    }
  };
  const rate = (rating) => rated(turn, rating, actions, box);
  const thumb = (rating, label) =>
    iconButton(rating, label, () => rate(rating), { "aria-pressed": String(turn.rating === rating) });
  box.append(
    iconButton("copy", "Copy the answer", copy),
    thumb("up", "A good answer"),
    thumb("down", "A bad answer"),
  );
  return box;
}

function rated(turn, rating, actions, box) {
  box.querySelector("form")?.remove();
  const send = async (comment) => {
    try {
      const { id, question, answer } = turn;
      await request("feedback", { method: "POST", body: { id, question, answer, rating, comment } });
      turn.rating = rating;
      actions.changed();
      for (const button of box.querySelectorAll("[aria-pressed]")) {
        const name = button.querySelector("use").getAttribute("href").split("#")[1];
        button.setAttribute("aria-pressed", String(name === rating));
      }
      announce("Thank you: it was noted.");
    } catch (error) {
      notice(error);
    }
  };
  if (rating === "up") return send("");
  const input = h("input", { "aria-label": "What was wrong?", placeholder: "What was wrong? (optional)", dir: "auto" });
  const form = h("form", { class: "comment" }, input, h("button", {}, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(input.value.trim());
    form.remove();
  });
  box.append(form);
  input.focus();
}
