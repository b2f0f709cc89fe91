"""Rows of a sheet as lines of text: under a header each row is a record that says what its values are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

MAX_CELLS = 1_000_000  # of a file


class Cell(NamedTuple):
    """A cell as it is shown; `words` where it is text rather than a number, a date or a truth value."""

    text: str
    words: bool


Row = Sequence[Cell]
EMPTY = Cell("", True)


def too_many(sheet: str, read: int) -> str:
    """The warning for a sheet of which only the first rows were read."""
    return f"sheet {sheet}: only {read:,} rows read, the limit is {MAX_CELLS:,} cells a file; split it"


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """The rows of a sheet as lines.

    A header is the first row with several cells, if all of them are words and differ. The rows
    below it are `name: value | name: value`, others `value | value`. After an empty row another
    table may begin: its header is a row of words above one with numbers or dates.

    Args:
        rows: From the top, empty ones included.

    Yields:
        A line for each row with text; an empty line where a table ends.
    """
    header: tuple[str, ...] = ()
    begun = gap = False
    previous: Row | None = None
    for row in chain(rows, [()]):
        if previous is not None:
            if not any(cell.text for cell in previous):
                gap = begun
            else:
                if gap:
                    yield ""
                fresh = not begun or (gap and not _all_words(row))
                if _several(previous):
                    begun = True
                    if fresh and _is_header(previous):
                        header = tuple(cell.text for cell in previous)
                        yield _joined(header)
                        previous, gap = row, False
                        continue
                yield _record(previous, header)
                gap = False
        previous = row


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


def _is_header(row: Row) -> bool:
    names = [cell.text for cell in row if cell.text]
    return len(names) > 1 and _all_words(row) and len(set(names)) == len(names)


def _record(row: Row, header: Sequence[str]) -> str:
    if not header or not _several(row):
        return _joined([cell.text for cell in row])
    named = ((header[at] if at < len(header) else "", cell.text) for at, cell in enumerate(row))
    return " | ".join(f"{name}: {text}" if name else text for name, text in named if text)


def _joined(cells: Sequence[str]) -> str:
    return " | ".join(cells).strip(" |")
