// The middle pane: the turns of one conversation, and the question that makes the next.

import { ApiError, events } from "./api.js";
import { $, announce, h, paced, plural, typing } from "./dom.js";
import { notice } from "./notice.js";
import { searchOptions } from "./options.js";
import { all, fresh, isStored, save, unique } from "./saved.js";
import { beginning } from "./text.js";
import { turnView } from "./turn.js";

const REMEMBERED = 6; // earlier turns that a question may lean on
const MOST = 10_000; // characters of a question that the server takes
const BROKEN = ["The answer broke off before its end.", "Ask again; if it happens often, the server's log says why."];

let conversation = fresh();
let running = null; // {asked, turn, controller} while an answer is being written
let openSource = () => {};
let changed = () => {};
let documents = null; // how many there are; null before that is known

/** Start: `onOpen(place, button)` shows a source, `onChange()` is told when the stored list changed. */
export function start({ onOpen, onChange }) {
  openSource = onOpen;
  changed = onChange;
  const question = $("question");
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!question.value.trim() || running) return;
    const asked = question.value.trim();
    if ([...asked].length > MOST)
      return notice({
        message: `The question has more than ${MOST.toLocaleString("en")} characters.`,
        remedy: "Ask for one thing at a time; a long text can be added as a document.",
      });
    question.value = "";
    grow();
    ask(asked);
  });
  question.addEventListener("keydown", (event) => {
    // While a word is being composed (Chinese, Japanese), Enter chooses it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  question.addEventListener("input", grow);
  $("stop").addEventListener("click", stop);
  addEventListener("pagehide", leave);
}

/** Show a stored conversation, or a new one. */
export function show(other = fresh()) {
  stop();
  conversation = other;
  draw();
  $("turns").scrollTop = $("turns").scrollHeight;
}

/** The conversation that is shown. */
export const shown = () => conversation;

/** Another window of ours may have stored more of the conversation that is shown here: its turns are taken over. */
export function catchUp() {
  const stored = all().find((other) => other.id === conversation.id);
  if (!stored || stored.updated <= conversation.updated) return;
  const ours = conversation.turns.filter((turn) => turn === running?.turn); // only we know how far it is
  const theirs = stored.turns.filter((turn) => !ours.some(({ key }) => key === turn.key));
  Object.assign(conversation, { title: stored.title, updated: stored.updated, turns: [...theirs, ...ours] });
  if (!running) follow(draw);
}

/** What an empty conversation says depends on whether there are documents. */
export function setDocuments(count) {
  if (count === documents) return; // its button may have the focus
  documents = count;
  if (!conversation.turns.length) draw();
}

/** Cancel the answer that is being written, if there is one; what has come stays. */
export const stop = () => running?.controller.abort();

/** The page is left: what has come of an answer is kept, and an end that somebody chose is no failure. */
function leave() {
  if (!running) return;
  stop();
  if (running.turn.state === "streaming") running.turn.state = "stopped";
  if (isStored(running.asked.id)) save(running.asked);
}

function grow() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function draw() {
  $("turns").replaceChildren(...conversation.turns.map((turn) => view(turn).element));
  if (!conversation.turns.length) $("turns").append(empty());
}

function empty() {
  if (documents === 0)
    return h(
      "div",
      { class: "empty" },
      h("h2", {}, "Begin with a document"),
      h("p", {}, "Add a PDF, a Word file or a web page, then ask about it. Each answer shows the place it comes from."),
      h("button", { type: "button", class: "primary", onclick: () => $("choose").click() }, "Add files"),
    );
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, documents ? `Ask about ${plural(documents, "document")}` : "Ask about your documents"),
    h("p", {}, "Answers cite their sources: a number such as ", h("span", { class: "cite" }, "1"), " opens the place."),
  );
}

function view(turn) {
  const store = () => {
    save(conversation);
    changed();
  };
  const again = () => {
    if (running) return;
    conversation.turns = conversation.turns.filter((other) => other !== turn);
    draw();
    ask(turn.question);
  };
  return turnView(turn, { open: openSource, again, changed: store });
}

async function ask(question) {
  const asked = conversation; // another may be shown before the answer is whole
  const turn = { key: unique(), question, answer: "", citations: [], hits: [], state: "streaming" };
  const history = asked.turns
    .filter((earlier) => earlier.state === "done")
    .slice(-REMEMBERED)
    .map(({ question, answer }) => ({ question, answer }));
  if (!asked.turns.length) {
    asked.title = beginning(question, 80);
    $("turns").replaceChildren();
  }
  asked.turns.push(turn);
  const { element, draw } = view(turn);
  $("turns").append(element);
  $("turns").scrollTop = $("turns").scrollHeight; // wherever the reader was: this is what is waited for
  running = { asked, turn, controller: new AbortController() };
  busy(true);
  save(asked);
  changed();
  announce("Searching.");
  const drawing = paced(() => follow(draw));
  await receive(turn, { question, history, ...searchOptions() }, running.controller.signal, drawing.later);
  running = null;
  busy(false);
  drawing.now();
  if (isStored(asked.id)) save(asked); // what was deleted meanwhile does not come back
  changed();
  announce(spoken(turn));
}

async function receive(turn, body, signal, draw) {
  try {
    for await (const [name, data] of events("ask", body, signal)) {
      if (name === "error") throw new ApiError(data.message, data.remedy);
      if (name === "sources") Object.assign(turn, { hits: data.hits, standalone: data.question });
      if (name === "token") turn.answer += data.text;
      if (name === "citation") turn.citations.push(data);
      if (name === "done")
        Object.assign(turn, { id: data.id, answer: data.text, answered: data.answered, state: "done" });
      draw();
    }
    if (turn.state === "streaming") throw new ApiError(...BROKEN);
  } catch (error) {
    await new Promise((resolve) => setTimeout(resolve)); // of a page that is being left nothing more is told
    if (turn.state === "done") return; // the answer is whole, whatever became of the connection
    if (error.name === "AbortError") turn.state = "stopped";
    else Object.assign(turn, { state: "failed", error: { message: error.message, remedy: error.remedy ?? null } });
  }
}

function spoken(turn) {
  if (turn.state === "done") return `Answer: ${turn.answer}`;
  return turn.state === "stopped" ? "Stopped." : `${turn.error.message} ${turn.error.remedy ?? ""}`;
}

function busy(value) {
  const [gone, come] = value ? [$("send"), $("stop")] : [$("stop"), $("send")];
  const focused = document.activeElement === gone;
  come.hidden = false;
  gone.hidden = true;
  if (focused) (typing.matches ? $("question") : come).focus();
}

/** Draw, and stay at the end if the reader was there. */
function follow(draw) {
  const box = $("turns");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 120;
  draw();
  if (atEnd) box.scrollTop = box.scrollHeight;
}
