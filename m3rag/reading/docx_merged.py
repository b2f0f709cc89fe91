"""Cells of Word that reach over several rows: what each of those rows says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from m3rag.reading.xml_tree import attribute, child, local

LONGEST = 300
"""Characters and elements of a value that is said in each row; a longer one is a text, which stands once."""

MOST_DIGITS = 5  # of a number of columns

_HANGING = frozenset({"drawing", "pict", "object", "footnoteReference", "endnoteReference"})


class Merged:
    """Which cell a cell goes on with; it has seen the rows up to that cell's."""

    def __init__(self, rows: Iterable[tuple[Element, Sequence[Element]]]) -> None:
        self._rows = rows
        self._above: dict[int, Element] = {}  # the first cell of a merge by its column
        self._first: dict[Element, Element] = {}

    def rows(self) -> Iterator[tuple[Element, Sequence[Element]]]:
        """The rows, each looked at as it is handed on."""
        for row, cells in self._rows:
            self._first.clear()
            at = _number(child(row, "trPr", "gridBefore"), 0)
            for cell in cells:
                self._take(cell, at)
                at += _number(child(cell, "tcPr", "gridSpan"), 1)
            yield row, cells

    def __call__(self, cell: Element) -> Element:
        """The cell whose text it shows."""
        return self._first.get(cell, cell)

    def _take(self, cell: Element, column: int) -> None:
        merge = child(cell, "tcPr", "vMerge")
        if merge is None:
            self._above.pop(column, None)
        elif attribute(merge, "val") == "restart":
            self._above[column] = cell if _is_value(cell) else Element("text")
        elif column in self._above and not any((e.text or "").strip() for e in cell.iter() if local(e) == "t"):
            self._first[cell] = self._above[column]


def _is_value(cell: Element) -> bool:
    length = sum(1 + len(e.text or "") for e in cell.iter())
    return length <= LONGEST and not any(local(e) in _HANGING for e in cell.iter())


def _number(element: Element | None, default: int) -> int:
    value = attribute(element, "val") or "" if element is not None else ""
    return int(value) if value.isdecimal() and len(value) <= MOST_DIGITS else default
