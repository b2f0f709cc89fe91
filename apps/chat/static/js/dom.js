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

/** Show what went wrong, and the remedy, for ten seconds. */
export function notice(error) {
  const box = $("notice");
  box.replaceChildren(...words([error.message, error.remedy].filter(Boolean).join(" ")));
  box.hidden = false;
  clearTimeout(box.timer);
  box.timer = setTimeout(() => (box.hidden = true), 10_000);
}

/** Several small things: `plural(1, "page")` is "1 page". */
export const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
