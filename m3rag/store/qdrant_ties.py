"""The best points of a search by an engine that cuts wherever its limit falls, also among equal scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

GROWTH = 4
"""How many times more is asked for while all that is left over ties: each time is another whole search."""


class Scored(Protocol):
    """What engines find."""

    @property
    def score(self) -> float: ...


Found = TypeVar("Found", bound=Scored)


def best_points(
    search: Callable[[int], Sequence[Found]], k: int, *, names: Callable[[Sequence[Found]], Sequence[str]]
) -> list[tuple[str, Found]]:
    """The best `k` points with the ids of their chunks, ties by id, also between the last one kept and those cut.

    Args:
        search: Gives the best points, at most so many, best first, ties in any order.
        k: >= 1. One more is asked for, which in the usual search shows that nothing beyond ties with the last.
        names: Gives the ids of the chunks that points stand for.
    """
    limit = k + 1
    found = search(limit)
    while len(found) == limit and found[-1].score == found[k - 1].score:
        limit *= GROWTH
        found = search(limit)
    return sorted(zip(names(found), found, strict=True), key=lambda one: (-one[1].score, one[0]))[:k]
