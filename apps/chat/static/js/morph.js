// Elements that become others in place: an answer that grows keeps the words that somebody has marked in it.

/** Make the children of an element equal to nodes; what is equal stays, text that goes on is added to. */
export function morph(parent, nodes) {
  let old = parent.firstChild;
  for (const node of nodes) {
    if (old && (old.isEqualNode(node) || become(old, node))) old = old.nextSibling;
    else parent.insertBefore(node, old);
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

function become(old, node) {
  if (old.nodeType !== node.nodeType) return false;
  if (old.nodeType === Node.TEXT_NODE) rewrite(old, node.data);
  else if (old.cloneNode(false).isEqualNode(node.cloneNode(false))) morph(old, [...node.childNodes]);
  else return false;
  return true;
}

// By additions, cuts and splits, which leave a selection where it is; new data would end it.
function rewrite(node, text) {
  const at = node.data.indexOf(text);
  if (at > 0) node.deleteData(0, at);
  if (at >= 0 && node.length > text.length) node.splitText(text.length);
  else if (text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else node.data = text;
}
