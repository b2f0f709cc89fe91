"""Rows of a sheet as lines of text: under a header each row is a record that says what its values are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from m3rag.reading.periods import periods

AHEAD = 20  # rows below a row that say what it is
MAX_CELLS = 1_000_000  # of a file


class Cell(NamedTuple):
    """A cell as it is shown.

    Attributes:
        text: What it says.
        words: Whether that is text rather than a number, a date or a truth value.
        style: The name of how it is formatted.
    """

    text: str
    words: bool
    style: str = ""


Row = Sequence[Cell]
EMPTY = Cell("", True)


def too_many(sheet: str, read: int) -> str:
    """The warning for a sheet of which only the first rows were read."""
    return f"sheet {sheet}: only {read:,} rows read, the limit is {MAX_CELLS:,} cells a file; split it"


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """The rows of a sheet as lines.

    A header is the first row with several cells, if all of them are words, or years in order, and differ.
    One of two cells is the first line of a form instead (`Name | Ann`, `City | Rome`, `Salary | 500`) if most
    labels end in a colon, or if it is formatted as the words below and its second cell is an e-mail address
    or a number, or that of fewer than 20 other rows is now words, now a number. The rows below a header are
    `name: value | name: value`, others `value | value`. After an empty row another
    table may begin: its header is a row of words above one with numbers or dates.

    Args:
        rows: From the top, empty ones included.

    Yields:
        A line for each row with text; an empty line where a table ends.
    """
    header: tuple[str, ...] = ()
    begun = gap = False
    left = iter(rows)
    ahead = deque(islice(left, AHEAD))
    while ahead:
        row = ahead.popleft()
        ahead.extend(islice(left, 1))
        if not _has_text(row):
            gap = begun
            continue
        if gap:
            yield ""
        fresh = not begun or (gap and not _all_words(ahead[0] if ahead else ()))
        gap = False
        begun = begun or _several(row)
        if fresh and _several(row) and _is_header(row, list(takewhile(_has_text, ahead))):
            header = tuple(cell.text for cell in row)
            yield _joined(header)
        else:
            yield _record(row, header)


def filled(rows: Iterable[Row], merged: Mapping[int, Sequence[tuple[int, int]]]) -> Iterator[Row]:
    """Put a value that is merged over several rows into each of them, so that each is a record.

    Args:
        rows: From the top, empty ones included.
        merged: `(column, last row)` of the merges by their first row, columns and rows from 1; looked
            up when the row is reached.

    Yields:
        The rows; one without any value of its own stays empty.
    """
    held: dict[int, tuple[Cell, int]] = {}
    for number, row in enumerate(rows, 1):
        if not held and number not in merged:
            yield row
            continue
        held = {column: (cell, last) for column, (cell, last) in held.items() if number <= last}
        filled = [*row]
        if any(cell.text for cell in row):
            for column, (cell, _) in held.items():
                filled += [EMPTY] * (column - len(filled))
                if not filled[column - 1].text:
                    filled[column - 1] = cell
        for column, last in merged.get(number, ()):
            if column <= len(row):
                held[column] = (row[column - 1], last)
        yield filled


def _several(row: Row) -> bool:
    return sum(1 for cell in row if cell.text) > 1


def _all_words(row: Row) -> bool:
    return all(cell.words for cell in row if cell.text)


def _has_text(row: Row) -> bool:
    return any(cell.text for cell in row)


def _is_header(row: Row, below: Sequence[Row]) -> bool:
    named = [(at, cell) for at, cell in enumerate(row) if cell.text]
    if len(named) < 2 or len({cell.text for _, cell in named}) < len(named):
        return False
    series = periods([cell.text for cell in row], [[cell.text for cell in r] for r in below])
    if not all(cell.words or at in series for at, cell in named):
        return False
    return bool(series) or len(named) > 2 or not _is_form(row, below)


def _is_form(row: Row, below: Sequence[Row]) -> bool:
    """Whether two cells are a name and its value, as in the rows below, rather than two names."""
    name, at = (place for place, cell in enumerate(row) if cell.text)
    if any(cell.text for under in below for cell in under[at + 1 :]):
        return False
    colons = sum(1 for under in below if name < len(under) and under[name].text.endswith(":"))
    if row[name].text.endswith(":") and 2 * colons >= len(below):
        return True
    values = [under[at] for under in below if at < len(under) and under[at].text]
    words = [cell for cell in values if cell.words]
    if not words or words[0].style != row[at].style:
        return False
    if _is_value(row[at].text):
        return True
    # Fewer words than numbers are what a list of prices says where it has none.
    mixed = len(values) / 2 <= len(words) < len(values) and any(map(str.isalpha, "".join(cell.text for cell in words)))
    return mixed and len(below) < AHEAD


def _is_value(text: str) -> bool:
    """Whether a text can hardly be the name of a column: it is an e-mail address or a number."""
    return ("@" in text.strip("@") and " " not in text) or (
        any(map(str.isdigit, text)) and not any(map(str.isalpha, text))
    )


def _record(row: Row, header: Sequence[str]) -> str:
    if not header or not _several(row):
        return _joined([cell.text for cell in row])
    named = ((header[at] if at < len(header) else "", cell.text) for at, cell in enumerate(row))
    return " | ".join(f"{name}: {text}" if name else text for name, text in named if text)


def _joined(cells: Sequence[str]) -> str:
    return " | ".join(cells).strip(" |")
