// The one line that says what went wrong, above the panes, so that it covers nothing.

import { $, iconButton, words } from "./dom.js";

const SHOWN = 10_000; // milliseconds, counted anew after it was pointed at or had the focus

const box = $("notice");
let timer = null;
let from = null; // where the focus came from

/** Show what went wrong, and the remedy. */
export function notice(error) {
  box.firstElementChild.replaceChildren(...words([error.message, error.remedy].filter(Boolean).join(" ")));
  box.hidden = false;
  wait();
}

function wait() {
  clearTimeout(timer);
  timer = setTimeout(() => box.matches(":hover, :focus-within") || (box.hidden = true), SHOWN);
}

function close() {
  box.hidden = true;
  from?.focus({ preventScroll: true });
}

box.append(iconButton("close", "Close this message", close));
box.addEventListener("pointerleave", wait);
box.addEventListener("focusin", ({ relatedTarget }) => (from = relatedTarget));
box.addEventListener("focusout", wait);
