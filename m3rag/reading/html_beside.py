"""What of a page is no part of its text: scripts, navigation, the header, footer and asides of the site around it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

from selectolax.lexbor import LexborNode

from m3rag.reading.html_nesting import tags

UNSEEN = tags(
    "head script style template noscript iframe object embed svg canvas audio video select datalist dialog nav "
    "rt rp "  # ruby: readings beside the words
    "annotation annotation-xml"  # an equation once more, for programs
)
# Within one of these a header or footer is a part of the text, not of the site around it.
SECTIONING = frozenset({"article", "main", "section", "blockquote", "figure"})
# Of these an aside is a part too; `main` and `section` hold the site's sidebars.
QUOTING = frozenset({"article", "blockquote", "figure"})
OWN_WORDS = 200  # characters outside links that make a page's header more than a banner

_NOTES = re.compile(
    r"(?:^|[\s_-])(?:(?:foot|end)?notes?|admonition|callout|warning|caution|danger|important|tip|hint|topic)(?:$|[\s_-])",
    re.IGNORECASE,
)
_SITE = re.compile(r"(?:^|[\s_-])(?:sidebar|related|widgets?|promo|newsletter)(?:$|[\s_-])", re.IGNORECASE)
_PERMALINKS = frozenset({"¶", "#", "🔗", "\uf0c1"})


Kept = Literal["margins", "asides"]


def is_beside(node: LexborNode, *, framed: bool, kept: Counter[Kept]) -> bool:
    """Whether a node is no part of the text.

    Args:
        node: An element.
        framed: Whether there may be a site around the text.
        kept: How many of the elements around the node keep what of it (see `keeps`).
    """
    if node.tag in UNSEEN:
        return True
    if node.tag == "a":
        return (node.attributes.get("href") or "").startswith("#") and node.text(strip=True) in _PERMALINKS
    if not framed:
        return False
    if node.tag == "aside":
        return _is_of_the_site(node) or not (kept["asides"] or _is_note(node))
    if kept["margins"]:
        return False
    return node.tag == "footer" or (
        node.tag == "header" and node.css_first("h1") is None and own_words(node) <= OWN_WORDS
    )


def keeps(node: LexborNode) -> tuple[Kept, ...]:
    """What within an element is a part of the text: headers and footers, asides."""
    if node.tag in QUOTING or node.tag == "aside":
        return ("margins", "asides")
    return ("margins",) if node.tag in SECTIONING or node.tag == "header" else ()


def own_words(node: LexborNode) -> int:
    """How many characters an element has outside of links."""
    linked = sum(len(a.text(strip=True)) for a in node.css("a, nav, button, script, style"))
    return len(node.text(strip=True)) - linked


def _is_of_the_site(aside: LexborNode) -> bool:
    return bool(_SITE.search(aside.attributes.get("class") or ""))


def _is_note(aside: LexborNode) -> bool:
    role = (aside.attributes.get("role") or "").strip().lower()
    return role.startswith("doc-") or role == "note" or bool(_NOTES.search(aside.attributes.get("class") or ""))
