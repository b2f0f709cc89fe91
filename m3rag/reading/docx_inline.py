"""The text of a Word paragraph: what stands in it after all tracked changes, and what hangs on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from m3rag.reading.docx_styles import Styles
from m3rag.reading.office_math import is_structure, written
from m3rag.reading.scripts import lowered, raised, settled
from m3rag.reading.xml_tree import attribute, child, local

# Deleted and moved-away text, properties, phonetic guides; fields' instructions are read by themselves.
_LEFT_OUT = frozenset({"del", "moveFrom", "delText", "delInstrText", "pPr", "sdtPr", "rt", "binData", "fldData"})
_WRITTEN = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,6}")
_TEXT = frozenset({"t", "sym", *_WRITTEN})
_SCRIPTS = {"superscript": raised, "subscript": lowered}
_DRAWINGS = {"relIds": "dm", "chart": "id"}  # by what they refer to their part
_COUNTING = frozenset({"PAGE", "NUMPAGES", "SECTIONPAGES"})


@dataclass(slots=True)
class Inline:
    """What a paragraph holds.

    Attributes:
        pieces: Its text; a line feed is a line break.
        boxes: The contents of text boxes anchored in it.
        notes: `(kind, id)` of the notes cited, kind being `footnote` or `endnote`.
        drawings: Ids of references to SmartArt and charts.
    """

    pieces: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    drawings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Field:
    instruction: str = ""
    shows: bool = False  # whether its result has begun

    @property
    def silent(self) -> bool:
        """Instructions are not text, and page numbers say nothing about it."""
        return not self.shows or self.instruction.split()[:1] in ([name] for name in _COUNTING)


class InlineReader:
    """Reads paragraphs in order; fields such as tables of contents reach over several of them."""

    def __init__(self, styles: Styles) -> None:
        self.hidden = 0  # passages left out because nobody sees them
        self.described = 0  # pictures with a description that is not shown
        self._styles = styles
        self._fields: list[_Field] = []

    def read(self, paragraph: Element) -> Inline:
        """The text of a paragraph and what hangs on it."""
        inline = Inline()
        hidden = self._styles.hidden(child(paragraph, "pPr"), style="pStyle")
        inline.pieces = [settled(self._taken(paragraph, inline, hidden=hidden))]
        # A field that shows nothing by its paragraph's end is damaged and must not hide what follows.
        self._fields = [f for f in self._fields if not f.silent]
        return inline

    def _children(self, elements: Iterable[Element], inline: Inline, *, hidden: bool) -> None:
        for inner in elements:
            self._element(inner, inline, hidden=hidden)

    def _element(self, element: Element, inline: Inline, *, hidden: bool) -> None:
        name = local(element)
        if name in _LEFT_OUT:
            return
        if name in _TEXT:
            self._text(element, inline, hidden=hidden)
        elif name == "r":
            self._run(element, inline, hidden=hidden)
        elif name == "txbxContent":
            inline.boxes.append(element)
        elif name == "AlternateContent":
            self._children(alternative(element), inline, hidden=hidden)
        elif name in ("footnoteReference", "endnoteReference"):
            inline.notes.append((name.removesuffix("Reference"), attribute(element, "id") or ""))
        elif name in _DRAWINGS:
            inline.drawings.append(attribute(element, _DRAWINGS[name]) or "")
        elif name == "docPr":
            self.described += bool((attribute(element, "descr") or "").strip())
        elif name == "fldSimple":
            self._fields.append(_Field(attribute(element, "instr") or "", shows=True))
            self._children(element, inline, hidden=hidden)
            self._fields.pop()
        elif name in ("fldChar", "instrText"):
            self._field(element, name)
        elif is_structure(element):
            inline.pieces.append(written(element, lambda part: self._taken(part, inline, hidden=hidden)))
        else:
            self._children(element, inline, hidden=hidden)

    def _taken(self, elements: Iterable[Element], inline: Inline, *, hidden: bool) -> str:
        """The text of elements, not yet in the paragraph; what hangs on them hangs on it."""
        begun = len(inline.pieces)
        self._children(elements, inline, hidden=hidden)
        text = "".join(inline.pieces[begun:])
        del inline.pieces[begun:]
        return text

    def _text(self, element: Element, inline: Inline, *, hidden: bool) -> None:
        if any(f.silent for f in self._fields):
            return
        if hidden:
            self.hidden += local(element) == "t"
        else:
            inline.pieces.append(_written(element))

    def _run(self, run: Element, inline: Inline, *, hidden: bool) -> None:
        properties = child(run, "rPr")
        if self._styles.hidden(properties, style="rStyle"):
            hidden = True
        begun = len(inline.pieces)
        for inner in run:
            if inner is not properties:
                self._element(inner, inline, hidden=hidden)
        if (script := _SCRIPTS.get(self._styles.aligned(properties))) is not None:
            inline.pieces[begun:] = [script("".join(inline.pieces[begun:]))]

    def _field(self, element: Element, name: str) -> None:
        if name == "instrText":
            if self._fields:
                self._fields[-1].instruction += element.text or ""
            return
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            self._fields.append(_Field())
        elif self._fields and kind == "separate":
            self._fields[-1].shows = True
        elif self._fields and kind == "end":
            self._fields.pop()


def alternative(element: Element) -> Iterable[Element]:
    """What to read of `mc:AlternateContent`: the first choice, unless only the fallback has text."""
    choice, fallback = child(element, "Choice"), child(element, "Fallback")
    if choice is not None and (fallback is None or any(local(e) in ("t", *_DRAWINGS) for e in choice.iter())):
        return choice
    return fallback if fallback is not None else ()


def _written(element: Element) -> str:
    name = local(element)
    if name == "t":
        return element.text or ""
    if name == "sym":
        char = attribute(element, "char") or ""
        code = int(char, 16) if _HEXADECIMAL.fullmatch(char) else 0xE000
        # Symbol fonts put their pictures into the private area: those have no meaning as text.
        return "" if 0xE000 <= code <= 0xF8FF or code > 0x10FFFF else chr(code)
    return _WRITTEN[name]
