"""CSV and TSV: a row is a line that says what its values are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

from m3rag.reading.content import Content
from m3rag.reading.csv_rows import Rows
from m3rag.reading.decoding import decode
from m3rag.reading.periods import periods

DELIMITERS = "\t;|,"
"""In the order in which they are chosen among equals: the last is the one that stands in texts and numbers too."""
SAMPLE_CHARACTERS = 1 << 16
SAMPLE_ROWS = 200
FITTING = 0.5
"""The least share of rows with the same number of cells."""
NAMED = 3  # lines that a warning names
HEADER_CHARACTERS = 100  # a longer cell is no name

_DECIMAL = re.compile(r"(?<![\d.,])(\d[\d.]*),(?=\d+(?![\d,]))")  # 1,2,3 is none
_STATED = re.compile(r"sep=([^\n])\n")
_NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d\s.,:/%-]*(?:[eE][-+]?\d+)?\)?[%€$£¥]?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*")


def read_csv(data: bytes) -> Content:
    """Read a table of text.

    The delimiter is that of Excel's first line `sep=;`, else that of tab, `; | ,` by which most rows have
    the same number of cells. The first such row is a header if its cells are names: words or a series of
    years, all different, none of them a value of its own column.

    Args:
        data: The file's bytes.

    Returns:
        A line for each row: under a header `name: value | name: value`, so that a line is
        understood alone, else `value | value`. The header is the first line. Empty values are left
        out, line ends within a value are blanks.

    Raises:
        ReadError: The bytes are not text.
    """
    return _read(data, suffix_says="")


def read_tsv(data: bytes) -> Content:
    """Read a table of text as `read_csv` does, its cells between tabs if there are any."""
    return _read(data, suffix_says="\t")


def _read(data: bytes, *, suffix_says: str) -> Content:
    decoded = decode(data)
    text = decoded.text.replace("\0", "")
    if stated := _STATED.match(text):
        text, delimiter = text[stated.end() :], stated[1]
    else:
        delimiter = suffix_says if suffix_says and suffix_says in text else _delimiter(text)
    rows = Rows(text, delimiter)
    lines = _lines(text, rows)
    return Content(
        "\n".join(lines),
        metadata={"encoding": decoded.encoding},
        warnings=(*decoded.warnings, *_told(rows.unclosed)),
    )


def _told(unclosed: Sequence[int]) -> Iterator[str]:
    if unclosed:
        named = f"line{'s' if len(unclosed) > 1 else ''} {', '.join(map(str, unclosed[:NAMED]))}"
        more = f" and {len(unclosed) - NAMED} more" if len(unclosed) > NAMED else ""
        yield f"{named}{more}: a quotation mark is never closed, or a value has over 131,072 characters: read as text"


def _delimiter(text: str) -> str | None:
    best, chosen = (0.0, 0), None  # share of the rows, cells in each
    for delimiter in DELIMITERS:
        sampled = _pointed(text, chosen) if delimiter == "," and chosen and best[0] >= FITTING else text
        if delimiter not in sampled[:SAMPLE_CHARACTERS]:
            continue
        widths = Counter(map(len, _sample(sampled, delimiter)))
        width, rows = max(((w, n) for w, n in widths.items() if w > 1), key=lambda p: (p[1], p[0]), default=(1, 0))
        score = (rows / max(sum(widths.values()), 1), width)
        if score > best:
            best, chosen = score, delimiter
    # Prose has commas too, in every line another number of them.
    return chosen if best[0] >= FITTING else None


def _pointed(text: str, fitting: str) -> str:
    """The sample with decimal points, where another delimiter fits: in cells that have no other commas."""
    sampled = text[: SAMPLE_CHARACTERS + 1]
    widths = [len(row) for row in _sample(text, ",")]
    first = sampled.lstrip("\n").partition("\n")[0]
    # A header of the commas' table.
    if fitting not in first and widths[1:] and 1 < widths[0] == Counter(widths[1:]).most_common(1)[0][0]:
        return text

    def pointed(cell: re.Match[str]) -> str:
        told = _DECIMAL.sub(r"\1.", cell[0])
        return cell[0] if "," in told else told

    return re.sub(rf"[^\n{re.escape(fitting)}]+", pointed, sampled)


def _sample(text: str, delimiter: str | None) -> list[list[str]]:
    sample = text[:SAMPLE_CHARACTERS]
    cut = len(sample) < len(text)
    found = Rows(sample, delimiter)
    # The end of the sample may cut a row, and a value in quotation marks.
    sound = takewhile(lambda _: not (cut and found.unclosed), found)
    rows = [row for row in islice(sound, SAMPLE_ROWS) if any(cell.strip() for cell in row)]
    return rows[:-1] if cut and 1 < len(rows) < SAMPLE_ROWS else rows


def _lines(text: str, rows: Rows) -> list[str]:
    sample = _sample(text, rows.delimiter)
    width = Counter(map(len, sample)).most_common(1)[0][0] if sample else 1
    header: list[str] | None = None
    lines = []
    sought = width > 1
    for row in rows:
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
    series = periods(cells, below)
    if any(len(c) > HEADER_CHARACTERS or _NUMBER.fullmatch(c) for at, c in enumerate(cells) if at not in series):
        return False
    return not any(cell and cell == " ".join(row[at].split()) for row in below for at, cell in enumerate(cells))


def _record(cells: Sequence[str], header: Sequence[str]) -> str:
    if not header:
        return " | ".join(cells).strip(" |")
    named = ((header[at] if at < len(header) else "", cell) for at, cell in enumerate(cells))
    return " | ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)
