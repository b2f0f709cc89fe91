"""What of a page is no part of its text: scripts, navigation, the header, footer and asides of the site around it."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

from m3rag.reading.html_nesting import tags

UNSEEN = tags(
    "head script style template noscript iframe object embed svg canvas audio video select datalist dialog nav "
    "rt rp "  # ruby: readings beside the words
    "annotation annotation-xml"  # an equation once more, for programs
)
# A header, footer or aside within one of these is a part of the text, not of the site around it.
SECTIONING = frozenset({"article", "main", "section", "blockquote", "figure"})
OWN_WORDS = 200  # characters outside links that make a page's header more than a banner

_NOTES = re.compile(
    r"(?:^|[\s_-])(?:(?:foot|end)?notes?|admonition|callout|warning|caution|danger|important|tip|hint|topic)(?:$|[\s_-])",
    re.IGNORECASE,
)
_PERMALINKS = frozenset({"¶", "#", "🔗", "\uf0c1"})


def is_beside(node: LexborNode, *, framed: bool) -> bool:
    """Whether a node is no part of the text.

    Args:
        node: An element.
        framed: Whether it may belong to the site around the text.
    """
    if node.tag in UNSEEN:
        return True
    if node.tag == "a":
        return (node.attributes.get("href") or "").startswith("#") and node.text(strip=True) in _PERMALINKS
    if not framed:
        return False
    if node.tag == "aside":
        return not _is_note(node)
    return node.tag == "footer" or (
        node.tag == "header" and node.css_first("h1") is None and own_words(node) <= OWN_WORDS
    )


def keeps(node: LexborNode) -> bool:
    """Whether headers, footers and asides within an element are parts of the text."""
    return node.tag in SECTIONING or node.tag in ("header", "aside")


def own_words(node: LexborNode) -> int:
    """How many characters an element has outside of links."""
    linked = sum(len(a.text(strip=True)) for a in node.css("a, nav, button, script, style"))
    return len(node.text(strip=True)) - linked


def _is_note(aside: LexborNode) -> bool:
    role = (aside.attributes.get("role") or "").strip().lower()
    return role.startswith("doc-") or role == "note" or bool(_NOTES.search(aside.attributes.get("class") or ""))
