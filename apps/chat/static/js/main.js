// Puts the parts of the page together.

import { get } from "./api.js";
import * as conversation from "./conversation.js";
import * as documents from "./documents.js";
import { $, icon, notice } from "./dom.js";
import * as history from "./history.js";
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

async function status() {
  try {
    const found = await get("status");
    $("status").textContent = `Model ${found.model} · ${found.llm ? `answers by ${found.llm}` : "answers are quotations"}`;
    $("status").title = $("status").textContent;
    options.setStatus(found);
    documents.setLimit(found.max_upload_mb);
  } catch (error) {
    $("status").textContent = "Not connected";
    notice(error);
  }
}

theme();
$("source-body").append(source.empty());
conversation.start({ onOpen: source.open, onChange: history.draw });
history.start();
documents.start({
  onOpen: (document) => source.open({ document_id: document.id, title: document.title }, null),
  onChange: (found) => {
    options.setDocuments(found);
    conversation.setDocuments(found.length);
    source.keep(found);
  },
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("dialog").open && source.close()) event.preventDefault();
});
// Another window or the command line may have changed the index meanwhile.
document.addEventListener("visibilitychange", () => document.hidden || documents.refresh());
await status();
await documents.refresh();
// Where nobody has gone elsewhere meanwhile, and no keyboard would cover half of a small screen.
if (document.activeElement === document.body && matchMedia("(hover: hover)").matches) $("question").focus();
