"""Word's styles: which paragraphs are headings or list items, and which text is hidden."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import related
from m3rag.reading.xml_tree import attribute, child, local, parse_part

_HEADING = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
BODY_LEVEL = 10  # Word's tenth outline level is that of body text
MAX_ANCESTORS = 50  # a style may be based on itself in a damaged file

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Style:
    """What a style says itself; None where it leaves it to the style it is based on."""

    based_on: str | None = None
    level: int | None = None
    hidden: bool | None = None
    listed: bool | None = None
    aligned: str | None = None


@dataclass(frozen=True, slots=True)
class Styles:
    """The styles of a document by their id."""

    by_id: Mapping[str, Style] = field(default_factory=dict)

    def level(self, properties: Element | None) -> int:
        """The heading level (from 1) that a paragraph's properties give; 0 for body text."""
        own = _outline(properties)
        level = own if own is not None else self._inherited(_style_id(properties, "pStyle"), lambda s: s.level)
        return level if level is not None and level < BODY_LEVEL else 0

    def listed(self, properties: Element | None) -> bool:
        """Whether a paragraph is an item of a list."""
        own = _listed(properties)
        return bool(own if own is not None else self._inherited(_style_id(properties, "pStyle"), lambda s: s.listed))

    def hidden(self, properties: Element | None, *, style: str) -> bool:
        """Whether a run's (`rStyle`) or a paragraph's (`pStyle`) properties hide its text."""
        own = switch(properties, "vanish")
        return bool(own if own is not None else self._inherited(_style_id(properties, style), lambda s: s.hidden))

    def aligned(self, properties: Element | None) -> str:
        """How a run's properties raise or lower its text: `superscript`, `subscript` or something else."""
        own = _aligned(properties)
        return own or self._inherited(_style_id(properties, "rStyle"), lambda s: s.aligned) or ""

    def _inherited(self, style_id: str | None, value: Callable[[Style], T | None]) -> T | None:
        for _ in range(MAX_ANCESTORS):
            style = self.by_id.get(style_id) if style_id is not None else None
            if style is None:
                return None
            found = value(style)
            if found is not None:
                return found
            style_id = style.based_on
        return None


def read_styles(archive: Archive, document: str) -> Styles:
    """The styles that a document's main part refers to; none of them where there is no such part."""
    part = related(archive, document, "styles")
    if part is None:
        return Styles()
    elements = (e for e in parse_part(archive, part) if local(e) == "style")
    return Styles({attribute(e, "styleId") or "": _style(e) for e in elements})


def switch(properties: Element | None, name: str) -> bool | None:
    """An on-off property: None where it is not given, on where it stands without a value."""
    found = child(properties, name) if properties is not None else None
    return None if found is None else attribute(found, "val") not in ("0", "false", "off")


def _style(element: Element) -> Style:
    based, name = child(element, "basedOn"), child(element, "name")
    paragraph = child(element, "pPr")
    named = (attribute(name, "val") or "").strip() if name is not None else ""
    heading = _HEADING.fullmatch(named)
    level = int(heading.group(1)) if heading else 1 if named.casefold() == "title" else _outline(paragraph)
    return Style(
        based_on=attribute(based, "val") if based is not None else None,
        level=level,
        hidden=switch(child(element, "rPr"), "vanish"),
        listed=_listed(paragraph),
        aligned=_aligned(child(element, "rPr")),
    )


def _style_id(properties: Element | None, name: str) -> str | None:
    found = child(properties, name) if properties is not None else None
    return attribute(found, "val") if found is not None else None


def _outline(properties: Element | None) -> int | None:
    found = child(properties, "outlineLvl") if properties is not None else None
    value = attribute(found, "val") if found is not None else None
    return int(value) + 1 if value is not None and value.isdecimal() else None


def _listed(properties: Element | None) -> bool | None:
    found = child(properties, "numPr") if properties is not None else None
    number = child(found, "numId") if found is not None else None
    return None if number is None else attribute(number, "val") != "0"


def _aligned(properties: Element | None) -> str | None:
    found = child(properties, "vertAlign") if properties is not None else None
    return attribute(found, "val") if found is not None else None
