"""Running headers, footers and page numbers: what stands at the same place on page after page."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MIN_PAGES = 4
MARGIN = 0.15  # of the page's height, at the top and at the bottom
MOST_LINES = 3  # in each margin
TOLERANCE = 0.01  # of the page's height, for the same place
FEW_LETTERS = 10  # "page ... of ..."

_DIGITS = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxlc]{1,9}", re.IGNORECASE)
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


class Line(NamedTuple):
    """A line of a page: its text and the height of its middle, 0 at the foot of the page, 1 at its head."""

    text: str
    height: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A line in a margin: its page and number, its place, its words, and the numbers it may count by."""

    page: int
    line: int
    place: int
    words: str
    numbers: tuple[int, ...]


def running_lines(pages: Sequence[Sequence[Line]]) -> list[frozenset[int]]:
    """Find the lines to leave out.

    The rule: a line among the three outermost of the upper or lower 15 % of the page, with nothing
    but such lines outside of it, is running if on 4 pages or more the same words and numbers stand at
    the same height (within 1 % of the page's); a number that counts with the pages is ignored. A
    running line whose words no other line of the file has stays where it stands first, so that
    nothing is lost. Page numbers (figures or Roman numerals, alone or with at most 10 letters, that
    count with the pages) go everywhere.

    Args:
        pages: The lines of each page, in any order.

    Returns:
        For each page the numbers of its lines to leave out.
    """
    margins = [[_margin(number, lines, upper) for upper in (True, False)] for number, lines in enumerate(pages)]
    candidates = [line for page in margins for margin in page for line in margin]
    running, counting = _running(candidates)
    body = _body(pages, running | counting)
    first: set[str] = set()
    out: list[frozenset[int]] = []
    for page in margins:
        leave = []
        for margin in page:
            for line in margin:
                known = (line.page, line.line)
                if known in running and known not in counting:
                    if line.words not in first and line.words not in body:
                        first.add(line.words)
                        continue
                elif known not in counting:
                    break
                leave.append(line.line)
        out.append(frozenset(leave))
    return out


def _margin(page: int, lines: Sequence[Line], upper: bool) -> list[_Candidate]:
    """The outermost lines of a margin, from the edge inwards."""
    inside = [
        (n, line) for n, line in enumerate(lines) if (line.height > 1 - MARGIN if upper else line.height < MARGIN)
    ]
    inside.sort(key=lambda found: (-found[1].height if upper else found[1].height, found[0]))
    found = []
    for number, line in inside[:MOST_LINES]:
        words = _words(line.text)
        figures = tuple(int(digits) for digits in _DIGITS.findall(line.text) if len(digits) < 7)
        bare = line.text.strip(" \t-–—.·[]()|")
        if _ROMAN.fullmatch(bare):
            words, figures = "", (_roman(bare.lower()),)
        found.append(_Candidate(page, number, round(line.height / TOLERANCE), words, figures))
    return found


def _running(candidates: Sequence[_Candidate]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Page and number of the lines that stay the same from page to page, and of those that are page numbers."""
    alike: dict[tuple[str, int | None, tuple[int | None, ...]], list[_Candidate]] = defaultdict(list)
    for line in candidates:
        # Without a number that counts with the pages, then with each that may.
        for step in {None, *(number - line.page for number in line.numbers)}:
            left = tuple(None if step is not None and n - line.page == step else n for n in line.numbers)
            alike[line.words, step, left].append(line)
    running: set[tuple[int, int]] = set()
    counting: set[tuple[int, int]] = set()
    for (words, step, _), lines in alike.items():
        letters = sum(c.isalpha() for c in words)
        found = {(line.page, line.line) for line in _at_one_place(lines)}
        if letters:
            running |= found
        if step is not None and letters <= FEW_LETTERS:
            counting |= found
    return running, counting


def _body(pages: Sequence[Sequence[Line]], left: set[tuple[int, int]]) -> str:
    """The words of all other lines, as those of candidates are written."""
    return "\n".join(
        _words(line.text)
        for page, lines in enumerate(pages)
        for number, line in enumerate(lines)
        if (page, number) not in left
    )


def _words(text: str) -> str:
    return "".join(_DIGITS.sub("", text).casefold().split())


def _at_one_place(lines: Sequence[_Candidate]) -> Iterator[_Candidate]:
    pages = Counter(place for _, place in {(line.page, line.place) for line in lines})
    for line in lines:
        # A hair's breadth may lie on the other side of a border between places.
        near = sum(pages[line.place + away] for away in (-1, 0, 1))
        if near >= MIN_PAGES:
            yield line


def _roman(text: str) -> int:
    values = [_VALUES[c] for c in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
