"""What filters match, in memory: which chunks hold a keyword, and which a number.

A filter of any kind then takes microseconds for each of its conditions, and no engine. Keywords are the digests of
`m3rag.store.terms`, so that a chunk of ten metadata values takes some 300 bytes.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from m3rag.store.filters import DOCUMENT_ID, And, AnyOf, Condition, Exists, Not, Or, Range
from m3rag.store.payload import Payload
from m3rag.store.terms import document_term

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int32]
Halves = npt.NDArray[np.uint64]

FIELDS = ("document_id", "terms", "keys", "numbers", "times")
"""What of a chunk's payload filters match."""

RANGED = ("numbers", "times")


def mask_of(condition: Condition, n: int, found: Callable[[AnyOf | Exists | Range], npt.NDArray[np.integer]]) -> Mask:
    """Which of `n` chunks meet a condition.

    Args:
        condition: Of any kind.
        n: How many chunks there are.
        found: The indices of the chunks that meet a condition on one field.

    Returns:
        `(n,)` bool.
    """
    match condition:
        case And(conditions):
            return _joined(np.logical_and, np.ones(n, bool), [mask_of(one, n, found) for one in conditions])
        case Or(conditions):
            return _joined(np.logical_or, np.zeros(n, bool), [mask_of(one, n, found) for one in conditions])
        case Not(inner):
            return ~mask_of(inner, n, found)
        case _:
            mask = np.zeros(n, bool)
            mask[found(condition)] = True
            return mask


def _joined(operation: np.ufunc, first: Mask, others: Sequence[Mask]) -> Mask:
    joined: Mask = operation.reduce([first, *others])
    return joined


@dataclass(frozen=True, eq=False, slots=True)
class Numbers:
    """The numbers, or the times, that some chunks hold under one key.

    Attributes:
        values: `(m,)` float64, ascending.
        places: `(m,)` int32, the index of the chunk that holds each.
    """

    values: npt.NDArray[np.float64]
    places: Places

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], places: Places) -> Numbers:
        """Of numbers in any order."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], places[order])

    def within(self, range_: Range) -> Places:
        """The chunks that hold a number within all bounds."""
        first = self._before([(range_.gt, "right"), (range_.gte, "left")])
        behind = self._before([(range_.lt, "left"), (range_.lte, "right")])
        return self.places[max(first, default=0) : min(behind, default=len(self.values))]

    def _before(self, bounds: Sequence[tuple[float | None, Literal["left", "right"]]]) -> list[int]:
        return [int(np.searchsorted(self.values, bound, side)) for bound, side in bounds if bound is not None]


@dataclass(frozen=True, eq=False, slots=True)
class FilterIndex:
    """The inverted index of what filters match in some chunks.

    Attributes:
        chunks: How many they are.
        high: `(m,)` uint64, the first halves of all chunks' keywords, ascending.
        low: `(m,)` uint64, the other halves.
        places: `(m,)` int32, the index of the chunk that has each.
        ranged: What ranges compare, by the field and the digest of the key.
    """

    chunks: int
    high: Halves
    low: Halves
    places: Places
    ranged: Mapping[tuple[str, str], Numbers]

    @classmethod
    def of(
        cls, high: Halves, low: Halves, places: Places, ranged: Mapping[tuple[str, str], Numbers], n: int
    ) -> FilterIndex:
        """Of `n` chunks' keywords in any order."""
        order = np.argsort(high, kind="stable")
        return cls(n, high[order], low[order], places[order], ranged)

    def mask(self, condition: Condition) -> Mask:
        """Which chunks meet a condition: `(chunks,)` bool."""
        return mask_of(condition, self.chunks, self._found)

    def _found(self, condition: AnyOf | Exists | Range) -> Places:
        match condition:
            case Exists():
                return self._with_any([condition.digest])
            case AnyOf(key, values) if key == DOCUMENT_ID:
                return self._with_any([document_term(str(value)) for value in values])
            case AnyOf():
                return self._with_any(condition.terms)
            case Range():
                numbers = self.ranged.get((condition.field, condition.digest))
                return np.zeros(0, np.int32) if numbers is None else numbers.within(condition)

    def _with_any(self, keywords: Sequence[str]) -> Places:
        """The chunks that have one of some keywords, some perhaps twice."""
        high, low = _halves(map(bytes.fromhex, keywords))
        first = np.searchsorted(self.high, high, "left")
        counts = np.searchsorted(self.high, high, "right") - first
        # From the first of each keyword on, as many as there are.
        at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        found: Places = self.places[at[self.low[at] == np.repeat(low, counts)]]
        return found


@dataclass(frozen=True, slots=True)
class FilterIndexBuilder:
    """Gathers what filters match, chunk by chunk, in as little memory as the index takes."""

    _keywords: bytearray = field(default_factory=bytearray)
    _counts: array[int] = field(default_factory=lambda: array("i"))
    _ranged: dict[tuple[str, str], tuple[array[float], array[int]]] = field(
        default_factory=lambda: defaultdict(lambda: (array("d"), array("i")))
    )

    def add(self, payload: Payload) -> None:
        """The next chunk, of whose payload `FIELDS` are needed."""
        place = len(self._counts)
        keywords = [document_term(payload["document_id"]), *payload["terms"], *payload["keys"]]
        self._keywords.extend(bytes.fromhex("".join(keywords)))
        self._counts.append(len(keywords))
        for name in RANGED:
            for digest, numbers in payload[name].items():
                values, places = self._ranged[name, digest]
                values.extend(numbers)
                places.extend([place] * len(numbers))

    def index(self) -> FilterIndex:
        """The index of all chunks so far."""
        n = len(self._counts)
        places = np.repeat(np.arange(n, dtype=np.int32), np.frombuffer(self._counts, np.int32))
        ranged = {
            key: Numbers.of(np.array(values, np.float64), np.array(holders, np.int32))
            for key, (values, holders) in self._ranged.items()
        }
        return FilterIndex.of(*_halves([bytes(self._keywords)]), places, ranged, n)


def merged(parts: Iterable[tuple[FilterIndex, npt.NDArray[np.int64]]]) -> FilterIndex:
    """One index of some chunks of several, in their order.

    Args:
        parts: The indices, and the ascending places of the chunks that are kept of each.
    """
    kept, ranged, n = [], defaultdict[tuple[str, str], list[tuple[npt.NDArray[np.float64], Places]]](list), 0
    for index, wanted in parts:
        now = np.full(index.chunks, -1, np.int32)
        now[wanted] = np.arange(n, n + len(wanted))
        n += len(wanted)
        moved = now[index.places]
        kept.append((index.high[moved >= 0], index.low[moved >= 0], moved[moved >= 0]))
        for key, numbers in index.ranged.items():
            moved = now[numbers.places]
            if (moved >= 0).any():
                ranged[key].append((numbers.values[moved >= 0], moved[moved >= 0]))
    high, low, places = (np.concatenate(each) for each in zip(*kept, strict=True))
    joined = {
        key: Numbers.of(*(np.concatenate(each) for each in zip(*some, strict=True))) for key, some in ranged.items()
    }
    return FilterIndex.of(high, low, places, joined, n)


def _halves(digests: Iterable[bytes]) -> tuple[Halves, Halves]:
    both = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
