"""Years and days as the names of columns (`Region, 2019, 2020`), which as values they resemble."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

MAX_STEP = 10  # years between columns; prices and years of birth lie further apart

_PERIOD = re.compile(r"(?:19|20)\d\d(?:[-/]\d{2,4}(?:-\d\d)?)?", re.ASCII)


def periods(cells: Sequence[str], below: Iterable[Sequence[str]]) -> frozenset[int]:
    """The places of cells that name periods, if they do: in order, above values of which most are no such.

    Years follow each other in equal steps of at most ten.

    Args:
        cells: The row that may be a header.
        below: Rows under it.
    """
    places = [at for at, cell in enumerate(cells) if _PERIOD.fullmatch(cell)]
    names = [cells[at] for at in places]
    if len(names) < 2 or names not in (sorted(set(names)), sorted(set(names), reverse=True)):
        return frozenset()
    steps = {later - year for year, later in pairwise(int(name) for name in names if name.isdigit())}
    if len(steps) > 1 or any(abs(step) > MAX_STEP for step in steps):
        return frozenset()
    values = [row[at] for row in below for at in places if at < len(row) and row[at]]
    others = sum(1 for value in values if not _PERIOD.fullmatch(value))
    return frozenset(places) if 2 * others > len(values) else frozenset()
