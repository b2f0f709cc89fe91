// Offsets of the server count characters (code points); a JavaScript string counts UTF-16 units.

const PAIR = /[\ud800-\udbff][\udc00-\udfff]/;

/** A function from a code point's offset to the index in the string. */
export function indexer(text) {
  if (!PAIR.test(text)) return (offset) => offset;
  return (offset) => {
    let index = 0;
    for (let left = offset; left > 0 && index < text.length; left--) index += text.codePointAt(index) > 0xffff ? 2 : 1;
    return index;
  };
}

/** The beginning of a text, at most so many characters as people count them: no emoji is cut in two. */
export function beginning(text, most) {
  const head = text.slice(0, 50 * most); // of which all that is shown is made
  const whole = Intl.Segmenter ? Array.from(new Intl.Segmenter().segment(head), (one) => one.segment) : [...head];
  return whole.slice(0, most).join("");
}

/** The text with some spans marked, as nodes. Spans are [start, end, class] in code points, in order. */
export function marked(text, spans) {
  const at = indexer(text);
  const nodes = [];
  let last = 0;
  for (const [start, end, kind] of spans) {
    const [from, to] = [Math.max(at(start), last), at(end)];
    if (to <= from) continue;
    const mark = document.createElement("mark");
    mark.className = kind;
    mark.textContent = text.slice(from, to);
    nodes.push(text.slice(last, from), mark);
    last = to;
  }
  return [...nodes, text.slice(last)];
}
