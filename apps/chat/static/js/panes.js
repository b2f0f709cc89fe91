// On a narrow screen one pane is shown at a time, chosen by the buttons at the top; from the source, Back leads out too.

import { $ } from "./dom.js";

const main = document.querySelector("main");
const tabs = [...document.querySelectorAll("#tabs button")];

let entered = false; // whether the browser's history ends with an entry of ours, for Back to take away
let leaving = false; // whether we are taking it away ourselves, which the browser does later
let onBack = () => {};

/** What Back does in the source. */
export const setBack = (action) => (onBack = action);

/** Show a pane (on a wide screen all three are visible anyway). */
export function show(pane) {
  main.dataset.pane = pane;
  for (const tab of tabs) {
    if (tab.dataset.pane === pane) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
  if (pane === "source") enter();
  else leave();
}

function enter() {
  if (entered || leaving || !$("tabs").checkVisibility()) return;
  entered = true;
  history.pushState({ pane: "source" }, "");
}

function leave() {
  if (!entered) return;
  [entered, leaving] = [false, true];
  history.back();
}

addEventListener("popstate", () => {
  if (leaving) {
    leaving = false;
    if (main.dataset.pane === "source") enter(); // it was opened again meanwhile
  } else if (entered) {
    entered = false;
    onBack();
  }
});
entered = history.state?.pane === "source"; // the page was loaded anew in there
leave();

for (const tab of tabs) tab.addEventListener("click", () => show(tab.dataset.pane));
