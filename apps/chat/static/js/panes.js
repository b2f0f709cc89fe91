// On a narrow screen one pane is shown at a time, chosen by the buttons at the top.

const main = document.querySelector("main");
const tabs = [...document.querySelectorAll("#tabs button")];

/** Show a pane (on a wide screen all three are visible anyway). */
export function show(pane) {
  main.dataset.pane = pane;
  for (const tab of tabs) {
    if (tab.dataset.pane === pane) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
}

for (const tab of tabs) tab.addEventListener("click", () => show(tab.dataset.pane));
