"""Where the lines of a page's form fields belong among its other lines: beside their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

MOST_PAIRS = 1_000_000  # of a field and a line; a page with more is left as it is
SHARED = 0.5  # of the lower of two lines' heights

Span = tuple[float, float, float, float]
"""Left, top, right, bottom of a line, downwards from above."""


def beside_labels(lines: Sequence[Span | None], fields: Sequence[range]) -> list[int]:
    """The order of a page's lines in which each field follows its label.

    Args:
        lines: Of the page; None for one whose place is not known.
        fields: The lines of each form field, in order: the last ones of the page.

    Returns:
        All lines' numbers. A field stands behind the nearest line that begins left of its first line and
        shares at least half of the height with that; without one before the nearest that begins right of
        it, as the label of a check box does; without one at the end.
    """
    others = fields[0].start if fields else len(lines)
    if len(fields) * others > MOST_PAIRS:
        return list(range(len(lines)))
    before: dict[int, list[range]] = defaultdict(list)
    behind: dict[int, list[range]] = defaultdict(list)
    rest: list[range] = []
    for field in fields:
        place = lines[field.start]
        beside = [
            (line[0], number)
            for number, line in enumerate(lines[:others])
            if line is not None and place is not None and _share_height(line, place)
        ]
        left = [found for found in beside if place is not None and found[0] <= place[0]]
        if left:
            behind[max(left)[1]].append(field)
        elif beside:
            before[min(beside)[1]].append(field)
        else:
            rest.append(field)
    order: list[int] = []
    for number in range(others):
        order += [*_from_left(before[number], lines), number, *_from_left(behind[number], lines)]
    return [*order, *chain(*rest)]


def _share_height(one: Span, other: Span) -> bool:
    common = min(one[3], other[3]) - max(one[1], other[1])
    return common >= SHARED * min(one[3] - one[1], other[3] - other[1])


def _from_left(fields: list[range], lines: Sequence[Span | None]) -> Iterator[int]:
    return chain(*sorted(fields, key=lambda field: (lines[field.start] or (0.0,))[0]))
