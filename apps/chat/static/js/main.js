// Puts the parts of the page together.

import { get } from "./api.js";
import * as conversation from "./conversation.js";
import * as documents from "./documents.js";
import { $, icon, typing } from "./dom.js";
import * as history from "./history.js";
import { notice } from "./notice.js";
import * as options from "./options.js";
import * as source from "./source.js";
import { local } from "./storage.js";

const systemDark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const say = () => $("theme").setAttribute("aria-pressed", String(dark()));
  $("theme").append(icon("moon"));
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    local.setItem("m3rag.theme", root.dataset.theme);
    say();
  });
  systemDark.addEventListener("change", say);
  say();
}

let connected = false;
let refused = false; // by the server, or by who would not say the key
let connecting = null;

/** Learn what the server is and holds; several that ask for it at once share one attempt. */
const connect = () => (connecting ??= meet().finally(() => (connecting = null)));

async function meet() {
  try {
    const found = await get("status");
    connected = true;
    $("status").textContent = `Model ${found.model} · ${found.llm ? `answers by ${found.llm}` : "answers are quotations"}`;
    $("status").title = $("status").textContent;
    options.setStatus(found);
    documents.setLimit(found.max_upload_mb);
  } catch (error) {
    $("status").textContent = "Not connected";
    refused = error.status > 0;
    return notice(error);
  }
  await documents.refresh();
}

theme();
$("source-body").append(source.empty());
conversation.start({ onOpen: source.open, onChange: history.draw });
history.start();
documents.start({
  onOpen: ({ id, title }, button) => source.open({ document_id: id, title }, button),
  onChange: (found, added) => {
    options.setDocuments(found);
    conversation.setDocuments(found.length);
    source.keep(found, added);
  },
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !$("dialog").open && source.close()) event.preventDefault();
});
// Another window or the command line may have changed the index meanwhile.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  if (connected) documents.refresh();
  else if (!refused) connect();
});
addEventListener("m3rag:answered", () => connected || connect());
await connect();
// Where nobody has gone elsewhere meanwhile.
if (document.activeElement === document.body && typing.matches) $("question").focus();
