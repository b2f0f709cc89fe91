// The list of stored conversations: show, rename, delete, begin a new one.

import { catchUp, show, shown } from "./conversation.js";
import { ask } from "./dialog.js";
import { $, h, iconButton } from "./dom.js";
import { show as showPane } from "./panes.js";
import { all, fresh, remove, save } from "./saved.js";

/** Start with the latest conversation. */
export function start() {
  show(all()[0] ?? fresh());
  $("new").addEventListener("click", () => go(fresh()));
  // Another window of ours stored or deleted one.
  addEventListener("storage", ({ newValue }) => {
    if (!newValue?.includes('"state":"streaming"')) catchUp();
    draw();
  });
  draw();
}

/** Draw the list anew. */
export function draw() {
  const rows = all().map((conversation) => {
    const title = conversation.title || "Untitled";
    const current = conversation.id === shown().id;
    const row = { type: "button", class: "row", title, "aria-current": current && "true", onclick: () => go(conversation) };
    return h(
      "li",
      {},
      h("button", row, h("span", { class: "name", dir: "auto" }, title)),
      iconButton("pen", `Rename ${title}`, () => rename(conversation)),
      iconButton("bin", `Delete the conversation ${title}`, () => drop(conversation)),
    );
  });
  $("saved-list").replaceChildren(...rows);
  $("saved-list").hidden = !rows.length;
  $("saved-empty").hidden = rows.length > 0;
}

function go(conversation) {
  show(conversation);
  draw();
  showPane("conversation");
  $("question").focus();
}

async function rename(conversation) {
  const title = await ask({ title: "Rename the conversation", ok: "Rename", field: { label: "Name", value: conversation.title } });
  if (!title?.trim()) return;
  const live = conversation.id === shown().id ? shown() : conversation;
  live.title = title.trim();
  save(live);
  draw();
  $("new").focus();
}

async function drop(conversation) {
  const sure = await ask({
    title: "Delete this conversation?",
    text: `“${conversation.title || "Untitled"}” is kept in this browser only. It cannot be brought back.`,
    ok: "Delete",
    danger: true,
  });
  if (!sure) return;
  remove(conversation.id);
  if (conversation.id === shown().id) show(all()[0] ?? fresh());
  draw();
  $("new").focus();
}
