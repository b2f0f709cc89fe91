"""OpenDocument sheets: the same records as of XLSX."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from m3rag.reading.content import Content
from m3rag.reading.joining import Part, join
from m3rag.reading.layout import Layout
from m3rag.reading.odt_blocks import Blocks, rows
from m3rag.reading.odt_styles import Styles
from m3rag.reading.xlsx_records import EMPTY, MAX_CELLS, Cell, Row, filled, lines, too_many
from m3rag.reading.xml_tree import attribute, local
from m3rag.types import Heading

_MIDNIGHT = "T00:00:00"


def read_sheets(body: Element, styles: Styles, title: str) -> Content:
    """Read the sheets of a workbook.

    Args:
        body: The `office:spreadsheet` element.
        styles: For what is hidden.
        title: The workbook's own title.

    Returns:
        Each visible sheet as its name, a heading, and a line for each row.
    """
    reader = _Sheets(styles)
    tables = [e for e in body if local(e) == "table"]
    hidden = [attribute(e, "name") or "" for e in tables if styles.hides(e)]
    joined = join([reader.sheet(e) for e in tables if not styles.hides(e)])
    if hidden:
        reader.warnings.append(f"hidden sheet{'s' if len(hidden) > 1 else ''} left out: {', '.join(hidden)}")
    return Content(joined.text, title=title, headings=joined.headings, warnings=tuple(reader.warnings))


class _Sheets:
    """Reads sheets one after the other, within one bound of cells for all of them."""

    def __init__(self, styles: Styles) -> None:
        self.warnings: list[str] = []
        self._styles = styles
        self._left = MAX_CELLS

    def sheet(self, table: Element) -> Part:
        """A sheet as text under its name; an empty part where it has no values."""
        name = " ".join((attribute(table, "name") or "").split())
        merged: dict[int, list[tuple[int, int]]] = {}
        body = "\n".join(lines(filled(self._rows(table, name, merged), merged)))
        if not body.strip():
            return Part("")
        return Part(f"{name}\n\n{body}" if name else body, (Heading(name, 1, 0, len(name)),) if name else ())

    def _rows(self, table: Element, name: str, merged: dict[int, list[tuple[int, int]]]) -> Iterator[Row]:
        number = 0
        for element in rows(table):
            row = self._row(element, number + 1, merged)
            # An empty row stands for any number of them, to the end of the sheet.
            times = _repeated(element, "number-rows-repeated") if row else 1
            for _ in range(times):
                self._left -= len(row)
                if self._left < 0:
                    self.warnings.append(too_many(name, number))
                    return
                number += 1
                yield row

    def _row(self, element: Element, number: int, merged: dict[int, list[tuple[int, int]]]) -> list[Cell]:
        row: list[Cell] = []
        pending = 0  # empty cells that count only if another one follows
        for cell in element:
            if local(cell) not in ("table-cell", "covered-table-cell"):
                continue
            times = _repeated(cell, "number-columns-repeated")
            read = self._cell(cell) if local(cell) == "table-cell" else EMPTY
            if not read.text:
                pending += times
                continue
            if len(row) + pending + times > self._left:
                pending, times = 0, 1
            row += [EMPTY] * pending
            pending = 0
            spanned = _repeated(cell, "number-rows-spanned")
            if spanned > 1:
                merged.setdefault(number, []).append((len(row) + 1, number + spanned - 1))
            row += [read._replace(style=attribute(cell, "style-name") or "")] * times
        return row

    def _cell(self, cell: Element) -> Cell:
        kind = attribute(cell, "value-type")
        moment = attribute(cell, "date-value") if kind == "date" else None
        if moment is not None:
            return Cell(moment.removesuffix(_MIDNIGHT), words=False)
        blocks = Blocks(self._styles, Layout())
        blocks.all(e for e in cell if local(e) == "p")
        return Cell(" ".join(blocks.layout.text.split()), words=kind in (None, "string"))


def _repeated(element: Element, name: str) -> int:
    return max(1, int(attribute(element, name) or "1"))
