// One question and its answer on the page. Elements that stay (passages, ratings) are made once, and the answer grows
// in place, so that a stream of words moves neither the focus nor what was unfolded or marked.

import { request } from "./api.js";
import { announce, h, iconButton, place, words } from "./dom.js";
import { hitsBlock } from "./hits.js";
import { morph } from "./morph.js";
import { notice } from "./notice.js";
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
  let rating = null;
  const draw = () => {
    element.dataset.state = turn.state;
    element.setAttribute("aria-busy", String(turn.state === "streaming"));
    answer.classList.toggle("unanswered", turn.answered === false);
    morph(answer, [...prose(turn.answer, (number) => citation(turn, number, actions)), ...state(turn, actions)]);
    if (turn.hits.length)
      passages ??= hitsBlock({ hits: turn.hits, question: turn.standalone || turn.question, open: actions.open });
    if (turn.state === "done") rating ??= tools(turn, actions);
    if (turn.state !== "streaming") passages?.cite(turn.citations);
    place(foot, [rating, passages?.element].filter(Boolean));
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
  const thumb = (rating, label) => {
    const button = iconButton(rating, label, () => rated(turn, rating, actions, box, button), {
      "aria-pressed": String(turn.rating === rating),
    });
    return button;
  };
  box.append(
    iconButton("copy", "Copy the answer", copy),
    thumb("up", "A good answer"),
    thumb("down", "A bad answer"),
  );
  return box;
}

function rated(turn, pressed, actions, box, button) {
  box.querySelector("form")?.remove();
  const rating = turn.rating === pressed ? null : pressed; // pressed once more, it is taken back
  const send = async (comment) => {
    try {
      const { id, question, answer } = turn;
      await request("feedback", { method: "POST", body: { id, question, answer, rating: rating ?? "none", comment } });
      turn.rating = rating;
      actions.changed();
      for (const thumb of box.querySelectorAll("[aria-pressed]"))
        thumb.setAttribute("aria-pressed", String(Boolean(rating) && thumb === button));
      announce(rating ? "Thank you: it was noted." : "Your rating was taken back.");
      return true;
    } catch (error) {
      notice(error);
      return false;
    }
  };
  if (rating !== "down") return send("");
  const input = h("input", { "aria-label": "What was wrong?", placeholder: "What was wrong? (optional)", dir: "auto" });
  const form = h("form", { class: "comment" }, input, h("button", {}, "Send"));
  const close = () => {
    if (form.contains(document.activeElement)) button.focus();
    form.remove();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await send(input.value.trim())) close();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.stopPropagation(); // it does not close the source, too
    close();
  });
  box.append(form);
  input.focus();
}
