"""The sections of a document between its headings, and the path of headings a chunk stands below."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3rag.chunking.units import HEADING, Units
from m3rag.types import Document


@dataclass(frozen=True, slots=True)
class Section:
    """The units from one heading to the next.

    Attributes:
        first: Its first unit.
        last: One past its last unit.
        level: That of its heading; 0 for what stands before the first heading.
        path: Heading texts from the outermost to its own.
        costs: About how many tokens each of them adds to a chunk's context.
    """

    first: int
    last: int
    level: int = 0
    path: tuple[str, ...] = ()
    costs: tuple[int, ...] = ()


def sections_of(document: Document, units: Units, spans: npt.NDArray[np.int64]) -> list[Section]:
    """Split the units at headings, and mark these cuts in `units.strength`.

    Args:
        document: Its headings are spans of its text.
        units: Of its text, not empty.
        spans: Its tokens, `(tokens, 2)`, to count those of the headings.

    Returns:
        Sections in order that cover all units; none is empty.
    """
    tokens = spans.reshape(-1, 2)[:, 0]
    sections: list[Section] = []
    path: list[tuple[int, str, int]] = []  # level, text, tokens
    opened = Section(0, 0)
    for heading in document.headings:
        first = units.at(heading.start)
        if first >= len(units):
            break
        if first > opened.first:
            sections.append(Section(opened.first, first, opened.level, opened.path, opened.costs))
        # One token more joins it to the next.
        cost = int(np.searchsorted(tokens, heading.end) - np.searchsorted(tokens, heading.start)) + 1
        path = [entry for entry in path if entry[0] < heading.level]
        path.append((heading.level, heading.text, cost))
        units.strength[first] = HEADING
        opened = Section(first, first, heading.level, tuple(p[1] for p in path), tuple(p[2] for p in path))
    sections.append(Section(opened.first, len(units), opened.level, opened.path, opened.costs))
    return sections


def context_path(sections: Sequence[Section], first: int, last: int, *, limit: int) -> tuple[str, ...]:
    """The headings that all of the units `[first, last)` stand below, outermost first.

    Args:
        sections: Of the document.
        first: The chunk's first unit.
        last: One past its last unit.
        limit: The most tokens; the innermost headings are kept first, one that is too long is left out.
    """
    at = bisect_right(sections, first, key=lambda s: s.first) - 1
    common = len(sections[at].path)
    following = at + 1
    while following < len(sections) and sections[following].first < last:
        other = sections[following].path
        same = (a == b for a, b in zip(sections[at].path[:common], other, strict=False))
        common = next((i for i, equal in enumerate(same) if not equal), min(common, len(other)))
        following += 1
    kept: list[str] = []
    for text, cost in reversed(list(zip(sections[at].path, sections[at].costs, strict=True))[:common]):
        if cost <= limit:
            kept.append(text)
            limit -= cost
    return tuple(reversed(kept))
