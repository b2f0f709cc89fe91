"""OpenDocument's paragraphs, lists, tables and boxes, laid out in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from m3rag.reading.layout import Layout
from m3rag.reading.odt_styles import Styles
from m3rag.reading.office_tables import lay_out_table
from m3rag.reading.scripts import settled
from m3rag.reading.xml_tree import attribute, local

# Text that was deleted, remarks, phonetic guides, page numbers, names for programs.
LEFT_OUT = frozenset({
    "tracked-changes", "annotation", "annotation-end", "forms", "sequence-decls", "variable-decls", "user-field-decls",
    "ruby-text", "note-citation", "page-number", "page-count", "script", "title", "desc", "hidden-paragraph",
    "event-listeners", "page-thumbnail", "dde-connection-decls",
})  # fmt: skip
MAX_BLANKS = 1000
_CELLS = frozenset({"table-cell", "covered-table-cell"})
_ROWS = frozenset({"table-row-group", "table-header-rows", "table-rows"})


class Blocks:
    """Lays out elements of a text document or of a slide."""

    def __init__(self, styles: Styles, layout: Layout) -> None:
        self.layout = layout
        self.styles = styles
        self._notes: list[Element] = []
        self._boxes: list[Element] = []

    def all(self, elements: Iterable[Element], *, listed: bool = False) -> None:
        """Lay out elements one after the other."""
        for element in elements:
            self.one(element, listed=listed)

    def one(self, element: Element, *, listed: bool = False) -> None:
        """Lay out an element with everything in it, then the notes cited in it."""
        name = local(element)
        if name in LEFT_OUT or self.styles.leaves_out(element):
            return
        if name in ("p", "h"):
            self._paragraph(element, listed=listed)
        elif name == "table":
            self._table(element)
        elif name == "list":
            self.layout.end_block(1 if listed else 2)
            for item in element:
                self.layout.end_block(1)
                self.all(item, listed=True)
            self.layout.end_block(1 if listed else 2)
        elif attribute(element, "class") == "title":
            self.layout.open_heading(1)
            self.all(element)
            self.layout.close_heading(1)
        else:
            self.all(element)
        if not self.layout.in_row:
            self._cited()

    def _cited(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self.layout.end_block(2)
            self.all(note)
            self.layout.end_block(2)

    def _paragraph(self, element: Element, *, listed: bool) -> None:
        text = settled("".join(self._pieces(element)))
        level = self.styles.level(element)
        self.layout.end_block(1 if listed else 2)
        heading = level and not self.layout.in_row and text.strip()
        if heading:
            self.layout.open_heading(level)
        for number, line in enumerate(text.split("\n")):
            if number:
                self.layout.end_block(1)
            self.layout.add(line)
        if heading:
            self.layout.close_heading(level)
        self.layout.end_block(1 if listed else 2)
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            self.layout.end_block(2)
            self.all(box)
            self.layout.end_block(2)

    def _pieces(self, element: Element) -> Iterator[str]:
        yield _folded(element.text)
        for inner in element:
            yield from self._piece(inner)
            yield _folded(inner.tail)

    def _piece(self, element: Element) -> Iterator[str]:
        name = local(element)
        if name in LEFT_OUT or self.styles.leaves_out(element):
            return
        if name == "s":
            yield " " * min(int(attribute(element, "c") or "1"), MAX_BLANKS)
        elif name == "tab":
            yield "\t"
        elif name == "line-break":
            yield "\n"
        elif name in ("note", "note-body"):
            self._notes += [e for e in element if local(e) == "note-body"]
        elif name in ("text-box", "table", "custom-shape", "rect", "ellipse", "circle", "polygon", "path"):
            self._boxes.append(element)
        elif name == "span":
            yield self.styles.script(element)("".join(self._pieces(element)))
        else:
            yield from self._pieces(element)

    def _table(self, table: Element) -> None:
        cells = ((row, [e for e in row if local(e) in _CELLS]) for row in rows(table))
        lay_out_table(cells, self.layout, cell=self.all, is_block=self._is_block, between=self._cited)

    def _is_block(self, element: Element) -> bool:
        name = local(element)
        return name == "table" or (name in ("p", "h") and bool(self.styles.level(element)))


def rows(table: Element) -> Iterator[Element]:
    """The rows of a table, those of groups and headers among them."""
    for element in table:
        if local(element) == "table-row":
            yield element
        elif local(element) in _ROWS:
            yield from rows(element)


def _folded(text: str | None) -> str:
    """White space as OpenDocument means it: line ends of the file are blanks, breaks are elements."""
    return (text or "").replace("\n", " ").replace("\r", " ")
