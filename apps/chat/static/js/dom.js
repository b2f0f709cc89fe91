// Elements out of names, properties and children. Strings become text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const $ = (id) => document.getElementById(id);

/** An element: `h("button", {class: "icon", onclick: f, "aria-label": "Copy"}, child, ...)`. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** An icon of icons.svg; what it means is the label of the button around it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = svg.appendChild(document.createElementNS(SVG, "use"));
  use.setAttribute("href", `static/icons.svg#${name}`);
  return svg;
}

/** A button that shows an icon and is named by a label. */
export const iconButton = (name, label, onclick, more = {}) =>
  h("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...more }, icon(name));

/** Say something to those who do not see the page. */
export function announce(text) {
  $("announce").textContent = text;
}

/** Words of the server as nodes: what stands in backticks is code, all else stays text. */
export const words = (text) => text.split(/`([^`\n]+)`/).map((part, i) => (i % 2 ? h("code", {}, part) : part));

/** Make nodes the children of an element. Only what differs is put in, moved or taken out: the rest keeps its state. */
export function place(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

/**
 * Draw the rows of a list: `key(item)` says which is which, `shows(item)` all that is seen of one, `make(item)` gives
 * its row. Rows that show the same stay, and the focus stays where it was, or as near as may be.
 */
export function rows(list, items, { key, shows, make }) {
  const before = [...list.children];
  const old = new Map(before.map((row) => [row.key, row]));
  const focused = document.activeElement;
  const at = before.findIndex((row) => row.contains(focused));
  const controls = (row) => [...row.querySelectorAll("button")];
  const control = at < 0 ? -1 : controls(before[at]).indexOf(focused);
  const after = items.map((item) => {
    const [name, seen] = [key(item), shows(item)];
    const row = old.get(name);
    return row?.shows === seen ? row : Object.assign(make(item), { key: name, shows: seen });
  });
  place(list, after);
  if (at < 0 || document.activeElement === focused || !after.length) return;
  const row = after.find((other) => other.key === before[at].key) ?? after[Math.min(at, after.length - 1)];
  controls(row)[control]?.focus({ preventScroll: true });
}

/** Drawing at most once a frame, however often it is asked for: `later()` asks, `now()` does not wait. */
export function paced(draw) {
  let due = 0;
  const now = () => {
    cancelAnimationFrame(due);
    due = 0;
    draw();
  };
  return { now, later: () => (due ||= requestAnimationFrame(now)) };
}

/** Whether the focus may go to a field by itself: where there is no mouse, a keyboard would cover half of the screen. */
export const typing = matchMedia("(hover: hover)");

/** Several small things: `plural(1, "page")` is "1 page". */
export const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
