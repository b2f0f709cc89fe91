"""How deep the elements of a web page nest, before a parser takes minutes over it."""

from __future__ import annotations

import re
from collections import Counter

from m3rag.errors import ReadError

MOST_WORK = 50_000_000
"""The most of the sum of depths, of all tags deeper than `ORDINARY`: that of 10,000 elements in each other."""

ORDINARY = 500
"""Browsers nest no deeper: they make siblings of what goes on."""

FEWEST_TAGS = 10_000
"""So many are needed for that much work."""

# Raw text first: what looks like a tag in it is none.
_TAG = re.compile(
    r"<(?:!--.*?(?:--!?>|\Z)|(script|style|textarea|title|xmp|noframes)\b.*?(?:</\1|\Z)|(/?)([a-z][^\s/>]*))",
    re.DOTALL | re.IGNORECASE,
)


def tags(names: str) -> frozenset[str]:
    """A set of element names, from a text with blanks between them."""
    return frozenset(names.split())


# At each of these a parser looks upward for a paragraph to end. Elements within lines are not counted: old
# pages leave thousands of them open, and the end of their paragraph ends them.
_CONTAINERS = tags(
    "address article aside blockquote caption center details dialog dir div dl fieldset figcaption figure footer form "
    "header hgroup listing main marquee menu nav object ol pre search section summary table template ul"
)
_WALLS = tags("caption marquee object table template")


def check_nesting(text: str) -> None:
    """Refuse a page that nests so deep that its parser, which looks upward at each tag, would not end in time.

    Args:
        text: The page.

    Raises:
        ReadError: The sum of depths exceeds `MOST_WORK`.
    """
    if text.count("<") < FEWEST_TAGS:
        return
    path: list[str] = []
    inside: Counter[str] = Counter()
    work = 0
    for match in _TAG.finditer(text):
        name = (match[3] or "").lower()
        if name not in _CONTAINERS:
            continue
        if match[2]:
            _leave(name, path, inside)
        else:
            path.append(name)
            inside[name] += 1
        if len(path) > ORDINARY:
            work += len(path)
            if work > MOST_WORK:
                raise ReadError(
                    f"nests its elements {len(path):,} deep: save it as a browser displays it, or leave it out"
                )


def _leave(name: str, path: list[str], inside: Counter[str]) -> None:
    """End an element and all that is open in it; but no end tag reaches out of a table or its like."""
    if not inside[name]:
        return
    at = len(path) - 1
    while path[at] != name:
        if path[at] in _WALLS:
            return
        at -= 1
    inside.subtract(path[at:])
    del path[at:]
