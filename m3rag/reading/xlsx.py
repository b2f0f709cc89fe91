"""XLSX: a sheet is a section, a row a record, a formula the value it last had."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import commented, core_title, described
from m3rag.reading.content import Content
from m3rag.reading.joining import Part, join
from m3rag.reading.xlsx_book import NAMESPACES, Book, NumberFormat, Sheet, item_text, read_book, unescaped
from m3rag.reading.xlsx_drawings import read_overlay
from m3rag.reading.xlsx_records import EMPTY, MAX_CELLS, Cell, Row, filled, lines, too_many
from m3rag.reading.xlsx_values import Meaning, shown
from m3rag.reading.xml_tree import stream_part
from m3rag.types import Heading

MAX_COLUMNS = 16_384
GAP = 100  # empty rows beyond which their number says nothing

# Merges are listed behind the rows that they are needed for.
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3})(\d{1,7}):[A-Z]+(\d{1,7})"')
OVERLAP = 512  # longer than any match that may be cut by the end of a piece


def read_xlsx(data: bytes) -> Content:
    """Read a workbook.

    Args:
        data: The file's bytes.

    Returns:
        Each visible sheet as its name, a heading, and a line for each row (see
        `m3rag.reading.xlsx_records.lines`), then its text boxes and the titles of its
        charts. Dates are in ISO 8601, percentages as shown, a value merged over several rows stands in
        each of them. Hidden sheets, sheets beyond a million
        cells, formulas without a stored value, comments and descriptions of pictures are told in the warnings.

    Raises:
        ReadError: The file is damaged, encrypted, a binary workbook, or packed or declared in a
            way that is not safe.
    """
    archive = Archive(data)
    book = read_book(archive)
    reader = _Reader(archive, book)
    hidden = [sheet.name for sheet in book.sheets if not sheet.visible]
    if hidden:
        reader.warnings.append(f"hidden sheet{'s' if len(hidden) > 1 else ''} left out: {', '.join(hidden)}")
    joined = join([reader.sheet(sheet) for sheet in book.sheets if sheet.visible])
    return Content(joined.text, title=core_title(archive), headings=joined.headings, warnings=reader.told)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A row as stored: its number from 1, and its cells from the first column."""

    number: int
    cells: list[Cell]


class _Reader:
    """Reads sheets one after the other, within one bound of cells for all of them."""

    def __init__(self, archive: Archive, book: Book) -> None:
        self.warnings: list[str] = []
        self._archive = archive
        self._book = book
        self._left = MAX_CELLS
        self._over: set[str] = set()  # the drawings, remarks and charts so far
        self._uncomputed = self._comments = self._described = 0

    @property
    def told(self) -> tuple[str, ...]:
        """What was left out, of all sheets."""
        return (*self.warnings, *commented(self._comments), *described(self._described))

    def sheet(self, sheet: Sheet) -> Part:
        """A sheet as text under its name; an empty part where it has no values."""
        self._uncomputed = 0
        body = "\n".join(lines(self._rows(sheet)))
        if self._uncomputed:
            self.warnings.append(
                f"sheet {sheet.name}: {self._uncomputed} formulas without a stored value read as empty; "
                "open and save the file in a spreadsheet program"
            )
        over = read_overlay(self._archive, sheet.part, self._over)
        self._comments += over.comments
        self._described += over.described
        body = "\n\n".join(filter(str.strip, (body, "\n".join(over.lines))))
        if not body:
            return Part("")
        heading = (Heading(sheet.name, 1, 0, len(sheet.name)),) if sheet.name else ()
        return Part(f"{sheet.name}\n\n{body}" if sheet.name else body, heading)

    def _rows(self, sheet: Sheet) -> Iterator[Row]:
        merged = _merged(self._archive, sheet.part)
        # Far below the last one a row is a gap, not a million of them.
        numbers: dict[int, list[tuple[int, int]]] = {}
        return filled(self._spaced(sheet, merged, numbers), numbers)

    def _spaced(
        self, sheet: Sheet, merged: dict[int, list[tuple[int, int]]], numbers: dict[int, list[tuple[int, int]]]
    ) -> Iterator[Row]:
        """The rows with gaps of at most a hundred, and the merges by the rows' places among these."""
        at = place = 0
        for stored in self._stored(sheet):
            gap = min(max(stored.number - at - 1, 0), GAP)
            for _ in range(gap):
                yield []
            at, place = max(stored.number, at + 1), place + gap + 1
            for column, last in merged.get(stored.number, ()):
                numbers.setdefault(place, []).append((column, last - stored.number + place))
            yield stored.cells

    def _stored(self, sheet: Sheet) -> Iterator[_Stored]:
        number = 0
        for row in stream_part(self._archive, sheet.part, within=[f"{n}sheetData" for n in NAMESPACES]):
            stated = row.get("r") or ""
            number = int(stated) if stated.isdecimal() else number + 1
            cells: list[Cell] = []
            for cell in row:
                column = _column(cell.get("r") or "") or len(cells) + 1
                read = self._cell(cell)
                if read.text and len(cells) < column <= MAX_COLUMNS:
                    cells += [EMPTY] * (column - 1 - len(cells))
                    cells.append(read._replace(style=cell.get("s") or "0"))
            self._left -= max(len(cells), len(row), 1)
            if self._left < 0:
                self.warnings.append(too_many(sheet.name, number - 1))
                return
            yield _Stored(number, cells)

    def _cell(self, cell: Element) -> Cell:
        kind, value, formula = cell.get("t") or "n", "", False
        for part in cell:
            name = part.tag.rpartition("}")[2]
            if name == "v":
                value = part.text or ""
            elif name == "is":
                return _words(item_text(part))
            elif name == "f":
                formula = True
        if not value:
            self._uncomputed += formula and kind != "str"
            return EMPTY
        if kind == "s":
            at = int(value)
            return _words(self._book.shared[at]) if at < len(self._book.shared) else EMPTY
        if kind == "n":
            kept = self._format(cell)
            value = shown(value, kept.meaning, from_1904=self._book.from_1904, digits=kept.digits)
        elif kind == "b":
            value = "TRUE" if value.strip() in ("1", "true") else "FALSE"
        elif kind not in ("d", "e"):
            return _words(unescaped(value))
        return Cell(value.removesuffix("T00:00:00"), words=False)

    def _format(self, cell: Element) -> NumberFormat:
        style = cell.get("s") or "0"
        known = self._book.formats
        return known[int(style)] if style.isdecimal() and int(style) < len(known) else NumberFormat(Meaning.NUMBER, 0)


def _words(text: str) -> Cell:
    return Cell(" ".join(text.split()), words=True)


def _column(reference: str) -> int:
    """The number of a column, from 1, in a reference such as `AB12`; 0 where there is none."""
    number = 0
    for letter in reference:
        if not "A" <= letter <= "Z":
            break
        number = number * 26 + ord(letter) - 64
    return number


def _merged(archive: Archive, part: str) -> dict[int, list[tuple[int, int]]]:
    """`(column, last row)` of the merges over several rows by their first row, from 1."""
    merged: dict[int, list[tuple[int, int]]] = {}
    kept = b""
    for piece in archive.chunks(part):
        text, done = kept + piece, 0
        for match in _MERGED.finditer(text):
            letters, first, last = match.group(1), int(match.group(2)), int(match.group(3))
            if last > first:
                column = reduce(lambda number, letter: number * 26 + letter - 64, letters, 0)
                merged.setdefault(first, []).append((column, last))
            done = match.end()
        kept = text[max(done, len(text) - OVERLAP) :]
    return merged
