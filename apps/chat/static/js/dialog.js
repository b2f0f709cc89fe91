// The one dialog: a question that is confirmed, or answered in a field.

import { $ } from "./dom.js";

/**
 * Ask. Resolves to the field's text (true where there is no field), or null when it was cancelled.
 * `field` is {label, type, value}.
 */
export function ask({ title, text = "", ok, field = null, danger = false }) {
  const dialog = $("dialog");
  const box = $("dialog-field");
  const input = box.querySelector("input");
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text;
  $("dialog-text").hidden = !text;
  $("dialog-ok").textContent = ok;
  $("dialog-ok").classList.toggle("danger", danger);
  box.hidden = !field;
  input.disabled = !field;
  if (field) {
    box.querySelector("span").textContent = field.label;
    input.type = field.type ?? "text";
    input.value = field.value ?? "";
  }
  dialog.returnValue = "";
  dialog.showModal();
  if (field) input.select();
  // A plain Enter in the field would press the form's first button, which is Cancel.
  input.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    dialog.close("ok");
  };
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "ok" ? (field ? input.value : true) : null);
  });
}
