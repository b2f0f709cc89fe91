// An answer as elements: paragraphs, lists, bold, code, blocks of code and citation buttons; all else stays text.
// Nothing here can make a link, an image or a script, whatever an answer holds.

import { h } from "./dom.js";

const INLINE = /\[(\d{1,3})\]|\*\*([^*\n]+)\*\*|`([^`\n]+)`/g;
const ITEM = /^\s*(?:[-*•]|(\d{1,3})[.)])\s+(?![-*•]\s)(.*)$/; // a ruled line, "- - - -", is none
const FENCE = /^\s*(`{3,})([^`]*)$/;

/** The elements of an answer; `cite(number)` gives the button of a citation, or null if there is none. */
export function prose(text, cite) {
  const blocks = [];
  let list = null;
  let lines = [];
  let fence = null; // what ends the block of code that is open
  const flush = () => {
    if (lines.length) blocks.push(h("p", { dir: "auto" }, ...inline(lines.join("\n"), cite)));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const [, ticks, language] = FENCE.exec(line) ?? [];
    if (fence) {
      if (ticks?.startsWith(fence) && !language.trim()) fence = null;
      else blocks.at(-1).firstChild.append(`${line}\n`);
      continue;
    }
    if (ticks) {
      flush();
      [fence, list] = [ticks, null];
      blocks.push(h("pre", { dir: "ltr", tabindex: 0 }, h("code")));
      continue;
    }
    const item = ITEM.exec(line);
    if (item) {
      flush();
      const kind = item[1] ? "OL" : "UL";
      if (list?.tagName !== kind) blocks.push((list = h(kind, item[1] ? { start: item[1] } : {})));
      list.append(h("li", { dir: "auto" }, ...inline(item[2], cite)));
    } else {
      list = line.trim() || !list ? null : list; // a blank line does not end a list, other text does
      if (line.trim()) lines.push(line);
      else flush();
    }
  }
  flush();
  return blocks;
}

function inline(text, cite) {
  const nodes = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, number, bold, code] = match;
    const node = number ? cite(Number(number)) : bold ? h("strong", {}, ...inline(bold, cite)) : h("code", {}, code);
    if (!node) continue;
    nodes.push(text.slice(last, match.index), node);
    last = match.index + whole.length;
  }
  return [...nodes, text.slice(last)];
}
