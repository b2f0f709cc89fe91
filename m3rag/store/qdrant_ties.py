"""The best points of a search by an engine that cuts wherever its limit falls, also among equal scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

GROWTH = 4
"""How many times more is asked for while all that is left over ties: each time is another whole search."""


class Scored(Protocol):
    """What engines find: a point with its payload and score."""

    @property
    def payload(self) -> Mapping[str, Any] | None: ...

    @property
    def score(self) -> float: ...


Found = TypeVar("Found", bound=Scored)


def best_points(search: Callable[[int], Sequence[Found]], k: int) -> list[Found]:
    """The best `k` points, ties by the id of the chunk, also between the last one kept and those cut.

    Args:
        search: Gives the best points, at most so many, best first, ties in any order; their payload has `id`.
        k: >= 1. One more is asked for, which in the usual search shows that nothing beyond ties with the last.
    """
    limit = k + 1
    while True:
        found = search(limit)
        named = [point for point in found if point.payload]  # what damage has left without it is no chunk any more
        if len(found) < limit or (len(named) > k and named[-1].score != named[k - 1].score):
            return sorted(named, key=lambda point: (-point.score, (point.payload or {})["id"]))[:k]
        limit *= GROWTH
