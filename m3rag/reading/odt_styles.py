"""OpenDocument's styles: which text is a heading, and what is hidden."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from m3rag.reading.scripts import lowered, raised
from m3rag.reading.xml_tree import attribute, local

_HEADING = re.compile(r"Heading(?:_20_| )?([1-9])")
MAX_ANCESTORS = 50  # a style may be its own parent in a damaged file


@dataclass(frozen=True, slots=True)
class Style:
    """The style it goes back to, whether it hides what it is used for, and where it puts it: `super`, `sub`, `33%`."""

    parent: str
    hides: bool
    position: str


class Styles:
    """The styles of a document by name; those of later elements win over earlier ones."""

    def __init__(self, elements: Iterable[Element]) -> None:
        """Take the styles among the elements, and those of lists of styles."""
        self.hidden = 0  # elements with text that were left out, so far
        self._styles: dict[str, Style] = {}
        for element in elements:
            for style in element.iter():
                if local(style) == "style":
                    name, parent = attribute(style, "name") or "", attribute(style, "parent-style-name") or ""
                    self._styles[name] = Style(parent, any(_hides(e) for e in style), _position(style))

    def leaves_out(self, element: Element) -> bool:
        """Whether an element is hidden; counted if it has text."""
        hidden = self.hides(element)
        if hidden and "".join(element.itertext()).strip():
            self.hidden += 1
        return hidden

    def hides(self, element: Element) -> bool:
        """Whether an element is hidden, by its own words or by its style."""
        if attribute(element, "display") in ("none", "false") or attribute(element, "is-hidden") == "true":
            return True
        return any(style.hides for _, style in self._line(element))

    def level(self, element: Element) -> int:
        """The heading level (from 1) of a paragraph; 0 for body text."""
        if local(element) == "h":
            return max(1, int(attribute(element, "outline-level") or "1"))
        for name, _ in self._line(element):
            if name == "Title":
                return 1
            if heading := _HEADING.fullmatch(name):
                return int(heading.group(1))
        return 0

    def script(self, element: Element) -> Callable[[str], str]:
        """How the text of a span is written, by where its style puts it."""
        position = next((style.position for _, style in self._line(element) if style.position), "")
        if position.startswith(("sub", "-")):
            return lowered
        return str if not position or position.startswith("0") else raised

    def _line(self, element: Element) -> Iterable[tuple[str, Style]]:
        name = attribute(element, "style-name") or ""
        for _ in range(MAX_ANCESTORS):
            style = self._styles.get(name)
            if style is None:
                return
            yield name, style
            name = style.parent


def _hides(properties: Element) -> bool:
    return attribute(properties, "display") in ("none", "false") or attribute(properties, "visibility") == "hidden"


def _position(style: Element) -> str:
    return next((found for e in style if (found := attribute(e, "text-position"))), "")
