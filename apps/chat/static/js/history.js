// The list of stored conversations: show, rename, delete, begin a new one.

import { catchUp, show, shown } from "./conversation.js";
import { ask } from "./dialog.js";
import { $, h, iconButton, rows, typing } from "./dom.js";
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
  const stored = all();
  $("saved-list").hidden = !stored.length;
  $("saved-empty").hidden = stored.length > 0;
  rows($("saved-list"), stored, {
    key: ({ id }) => id,
    shows: ({ id, title }) => JSON.stringify([title, id === shown().id]),
    make: row,
  });
}

function row({ id, title: given }) {
  const title = given || "Untitled";
  const current = id === shown().id && "true";
  // The row stays while the conversation goes on: what is stored is looked up when it is wanted.
  const on = (act) => () => {
    const found = all().find((other) => other.id === id);
    if (found) act(found);
  };
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "row", title, "aria-current": current, onclick: on(go) },
      h("span", { class: "name", dir: "auto" }, title),
    ),
    iconButton("pen", `Rename ${title}`, on(rename)),
    iconButton("bin", `Delete the conversation ${title}`, on(drop)),
  );
}

function go(conversation) {
  show(conversation);
  draw();
  showPane("conversation");
  (typing.matches ? $("question") : $("turns")).focus();
}

async function rename(conversation) {
  const title = await ask({ title: "Rename the conversation", ok: "Rename", field: { label: "Name", value: conversation.title } });
  if (!title?.trim()) return;
  const live = conversation.id === shown().id ? shown() : conversation;
  live.title = title.trim();
  save(live);
  draw();
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
