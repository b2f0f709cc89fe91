// Conversations in the browser's storage, each under a key of its own: a damaged one harms no other, and
// two windows overwrite each other only where they show the same one (see `catchUp`).

import { notice } from "./notice.js";
import { local } from "./storage.js";

const PREFIX = "m3rag.conversation.";
const FULL = "The browser's storage is full: ";

const keys = () => Object.keys(local).filter((key) => key.startsWith(PREFIX));
const list = (value) => (Array.isArray(value) ? value : []);
const text = (value) => (typeof value === "string" ? value : "");

/** A name that nothing else has. */
export const unique = () => crypto.randomUUID?.() ?? `${Date.now()}${Math.random()}`;

/** A conversation without turns, not stored before it has one. */
export const fresh = () => ({ id: unique(), title: "", updated: 0, turns: [] });

/** All stored conversations, the latest first; one that cannot be read is dropped with a notice. */
export function all() {
  const found = keys().map((key) => {
    try {
      return revive(JSON.parse(local.getItem(key)));
    } catch {
      local.removeItem(key);
      notice({ message: "A stored conversation was damaged and has been removed." });
      return null;
    }
  });
  return found.filter(Boolean).sort((a, b) => b.updated - a.updated);
}

/** Store a conversation; where there is no room, the oldest others make it. */
export function save(conversation) {
  conversation.updated = Date.now();
  const value = JSON.stringify(conversation);
  const others = all().filter((other) => other.id !== conversation.id);
  for (;;) {
    try {
      local.setItem(PREFIX + conversation.id, value);
      return;
    } catch {
      const oldest = others.pop();
      if (!oldest) return notice({ message: `${FULL}this conversation will not survive a reload.` });
      remove(oldest.id);
      notice({ message: `${FULL}the conversation “${oldest.title}” made room.` });
    }
  }
}

/** Whether a conversation is stored: it may have been deleted meanwhile. */
export const isStored = (id) => local.getItem(PREFIX + id) !== null;

/** Forget a conversation. */
export const remove = (id) => local.removeItem(PREFIX + id);

function revive(value) {
  if (typeof value.id !== "string") throw new TypeError("no conversation");
  const turns = list(value.turns).filter((turn) => typeof turn?.question === "string");
  return { id: value.id, title: text(value.title), updated: Number(value.updated) || 0, turns: turns.map(reviveTurn) };
}

function reviveTurn(turn) {
  return {
    ...turn,
    answer: text(turn.answer),
    citations: list(turn.citations).filter((c) => c && typeof c.document_id === "string"),
    hits: list(turn.hits).filter((hit) => hit && typeof hit.text === "string"),
    // It was being written when the page was left.
    state: turn.state === "streaming" ? "stopped" : text(turn.state) || "done",
  };
}
