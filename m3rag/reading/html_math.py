"""What stands raised, lowered or over a line in a page (`<sup>`, `<sub>`, MathML), in a line of text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from selectolax.lexbor import LexborNode

from m3rag.reading.scripts import is_fraction, subscript, superscript

# The sign before each child of an element of MathML, by its place.
_SIGNS = {
    "mfrac": ("", "/"),
    "msup": ("", "^"),
    "msub": ("", "_"),
    "msubsup": ("", "_", "^"),
    "munder": ("", "_"),
    "munderover": ("", "_", "^"),
}
_WRITTEN: dict[str, Callable[[str], str]] = {"sup": superscript, "sub": subscript, "^": superscript, "_": subscript}
_ROOTS = ("msqrt", "mroot")
_LEAVES = frozenset({"mi", "mn", "mo", "mtext", "ms"})


class Scripts:
    """Writes the text of a page's elements as they are opened and closed, without recursion: pages nest deep."""

    def __init__(self, seen: Callable[[LexborNode], str]) -> None:
        """`seen` gives the text of an element that a person sees."""
        self._seen = seen
        self._within = 0  # the outermost raised or lowered element that is open
        self._written: Callable[[str], str] = str
        self._last = ""
        self._fraction = False  # whether the raised text is a fraction
        self._divided = False  # whether a fraction has just ended

    def written(self, event: str, node: LexborNode) -> str:
        """What is written for a text, or before (`open`) or after (`close`) an element."""
        if event == "text":
            return self._text(node)
        return self._opened(node) if event == "open" else self._closed(node)

    def end_line(self) -> None:
        """What follows stands on a line of its own."""
        self._divided, self._last = False, ""

    def _opened(self, node: LexborNode) -> str:
        if node.tag in ("sup", "sub") and not self._within:
            last, text = self._last, self._begin(node, node.tag)
            self._fraction = is_fraction(text)
            return " " if self._fraction and last.isdigit() else ""
        sign, group = _signs(node)
        # Beside a fraction a digit would be a part of it.
        apart = " " if node.tag == "mfrac" and not sign and self._last.isalnum() else ""
        if sign in _WRITTEN and node.tag in _LEAVES and not self._within:
            self._begin(node, sign)
            return "" if self._written is not str else sign
        return apart + sign + "(" * group

    def _closed(self, node: LexborNode) -> str:
        if node.mem_id == self._within:
            self._within, self._written = 0, str
            self._divided, self._fraction = self._divided or self._fraction, False
        self._divided = self._divided or node.tag == "mfrac"
        return ")" * _signs(node)[1]

    def _text(self, node: LexborNode) -> str:
        within = node.parent.tag if node.parent is not None else None
        text = node.text_content or ""
        if not text or (within in _SIGNS and not text.strip()):
            return ""
        apart = " " if self._divided and text[0].isalnum() else ""
        self._divided, self._last = False, text[-1]
        return apart + self._written(text)

    def _begin(self, node: LexborNode, kind: str | None) -> str:
        text, written = self._seen(node), _WRITTEN[kind or ""]
        # As a whole: the number of a mark such as [1] stays a number.
        self._within, self._written = node.mem_id, written if written(text) != text else str
        return text


def _signs(node: LexborNode) -> tuple[str, bool]:
    """The sign before an element by its place in an equation, and whether it needs parentheses."""
    parent = node.parent
    signs = _SIGNS.get(parent.tag or "", ()) if parent is not None else ()
    place, earlier = 0, node.prev if signs else None
    while earlier is not None and place < len(signs):
        place += earlier.is_element_node
        earlier = earlier.prev
    sign = signs[place] if place < len(signs) else ""
    divided = parent is not None and parent.tag == "mfrac"
    if node.tag in _ROOTS:
        return f"{sign}√", True
    return sign, (bool(sign) or divided) and not _is_token(node)


def _is_token(node: LexborNode) -> bool:
    """Whether an element of an equation holds a single number, name or sign."""
    elements = list(islice(node.iter(), 2)) if node.tag == "mrow" else [node]
    return len(elements) == 1 and elements[0].tag in _LEAVES
