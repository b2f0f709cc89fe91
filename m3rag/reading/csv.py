"""CSV and TSV: a row is a line that says what its values are."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice

from m3rag.reading.content import Content
from m3rag.reading.decoding import decode

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 1 << 16
SAMPLE_ROWS = 200
HEADER_CHARACTERS = 100  # a longer cell is no name

_STATED = re.compile(r"sep=([^\n])\n")
_NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d\s.,:/%-]*(?:[eE][-+]?\d+)?\)?[%€$£¥]?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*")


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How to take the lines apart; no delimiter where there is one column."""

    delimiter: str | None
    quoting: bool


def read_csv(data: bytes) -> Content:
    """Read a table of text.

    The delimiter is that of Excel's first line `sep=;`, else that of `, ; tab |` by which most rows have
    the same number of cells. The first such row is a header if its cells are names: words, all different,
    none of them a value of its own column.

    Args:
        data: The file's bytes.

    Returns:
        A line for each row: under a header `name: value | name: value`, so that a line is
        understood alone, else `value | value`. The header is the first line. Empty values are left
        out, line ends within a value are blanks.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = decode(data)
    text = decoded.text.replace("\0", "")
    told = list(decoded.warnings)
    if stated := _STATED.match(text):
        text = text[stated.end() :]
    dialect = _Dialect(stated[1], quoting=True) if stated else _dialect(text)
    try:
        lines = _lines(text, dialect)
    except csv.Error:
        told.append("a quotation mark is never closed, or a value has over 131,072 characters: quotes read as text")
        lines = _lines(text, _Dialect(dialect.delimiter, quoting=False))
    return Content("\n".join(lines), metadata={"encoding": decoded.encoding}, warnings=tuple(told))


def _rows(text: str, dialect: _Dialect) -> Iterator[list[str]]:
    if dialect.delimiter is None:
        return ([line] for line in text.split("\n"))
    return csv.reader(
        StringIO(text, newline=""),
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoting else csv.QUOTE_NONE,
        skipinitialspace=True,
    )


def _dialect(text: str) -> _Dialect:
    best, chosen = (0.0, 0), _Dialect(None, quoting=True)
    for delimiter in DELIMITERS:
        if delimiter not in text[:SAMPLE_CHARACTERS]:
            continue
        for quoting in (True, False):
            try:
                widths = Counter(map(len, _sample(text, _Dialect(delimiter, quoting))))
            except csv.Error:
                continue
            width, rows = max(((w, n) for w, n in widths.items() if w > 1), key=lambda p: (p[1], p[0]), default=(1, 0))
            score = (rows / max(sum(widths.values()), 1), width)
            if score > best:
                best, chosen = score, _Dialect(delimiter, quoting)
            break
    # Prose has commas too, in every line another number of them.
    return chosen if best[0] >= 0.5 else _Dialect(None, quoting=True)


def _sample(text: str, dialect: _Dialect) -> list[list[str]]:
    sample = text[:SAMPLE_CHARACTERS]
    rows = [row for row in islice(_rows(sample, dialect), SAMPLE_ROWS) if any(cell.strip() for cell in row)]
    # The end of the sample may cut a row.
    return rows[:-1] if len(sample) < len(text) and 1 < len(rows) < SAMPLE_ROWS else rows


def _lines(text: str, dialect: _Dialect) -> list[str]:
    sample = _sample(text, dialect)
    width = Counter(map(len, sample)).most_common(1)[0][0] if sample else 1
    header: list[str] | None = None
    lines = []
    sought = width > 1
    for row in _rows(text, dialect):
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells):
            continue
        if sought and len(cells) == width:
            sought = False
            if _is_header(cells, [r for r in sample if len(r) == width][1:]):
                header = cells
                lines.append(" | ".join(cells).strip())
                continue
        lines.append(_record(cells, header or ()))
    return lines


def _is_header(cells: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    named = [cell for cell in cells if cell]
    # Tables of statistics have an unnamed first column.
    if len(named) < max(2, len(cells) - 1) or len(set(map(str.casefold, named))) < len(named):
        return False
    if any(len(cell) > HEADER_CHARACTERS or _NUMBER.fullmatch(cell) for cell in named):
        return False
    return not any(cell and cell == " ".join(row[at].split()) for row in below for at, cell in enumerate(cells))


def _record(cells: Sequence[str], header: Sequence[str]) -> str:
    if not header:
        return " | ".join(cells).strip(" |")
    named = ((header[at] if at < len(header) else "", cell) for at, cell in enumerate(cells))
    return " | ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)
