"""What filters match, in memory: which chunks hold a keyword, and which a number.

A filter of any kind then takes microseconds for each of its conditions, and no engine. Keywords are the digests of
`m3rag.store.terms`, so that a chunk of ten short metadata values takes some 500 bytes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from m3rag.store.filters import DOCUMENT_ID, And, AnyOf, Condition, Exists, Not, Or, Range
from m3rag.store.payload import Payload
from m3rag.store.terms import document_term, numbers

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int32]
Halves = npt.NDArray[np.uint64]
Keywords = tuple[Halves, Halves]
"""The first and the second halves of some digests, which are of 16 bytes."""

FIELDS = ("document_id", "terms", "keys", "numbers", "times", "metadata")
"""What of a chunk's payload `FilterIndexBuilder` reads."""


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
            mask = np.ones(n, bool)
            for one in conditions:
                mask &= mask_of(one, n, found)
        case Or(conditions):
            mask = np.zeros(n, bool)
            for one in conditions:
                mask |= mask_of(one, n, found)
        case Not(inner):
            mask = ~mask_of(inner, n, found)
        case _:
            mask = np.zeros(n, bool)
            mask[found(condition)] = True
    return mask


class Postings(NamedTuple):
    """Which chunks hold which keywords.

    Attributes:
        high: `(m,)` uint64, the first halves of all chunks' keywords, ascending.
        low: `(m,)` uint64, the other halves.
        places: `(m,)` int32, the index of the chunk that has each.
    """

    high: Halves
    low: Halves
    places: Places

    @classmethod
    def of(cls, high: Halves, low: Halves, places: Places) -> Postings:
        """Of keywords in any order."""
        order = np.argsort(high, kind="stable")
        return cls(high[order], low[order], places[order])

    def with_any(self, keywords: Keywords) -> Places:
        """The chunks that have one of some keywords, some perhaps twice."""
        high, low = keywords
        first = np.searchsorted(self.high, high, "left")
        counts = np.searchsorted(self.high, high, "right") - first
        # From the first of each keyword on, as many as there are.
        at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        found: Places = self.places[at[self.low[at] == np.repeat(low, counts)]]
        return found


class Numbers(NamedTuple):
    """Which chunks hold which numbers under which keys.

    Attributes:
        high: `(m,)` uint64, the first halves of the keys' digests, ascending.
        low: `(m,)` uint64, the other halves.
        values: `(m,)` float64, ascending under each key.
        places: `(m,)` int32, the index of the chunk that holds each.
    """

    high: Halves
    low: Halves
    values: npt.NDArray[np.float64]
    places: Places

    @classmethod
    def of(cls, high: Halves, low: Halves, values: npt.NDArray[np.float64], places: Places) -> Numbers:
        """Of numbers in any order."""
        order = np.lexsort((values, high))
        return cls(high[order], low[order], values[order], places[order])

    def within(self, key: Keywords, range_: Range) -> Places:
        """The chunks that hold a number under one key within all bounds."""
        (high,), (low,) = key
        start, end = np.searchsorted(self.high, high, "left"), np.searchsorted(self.high, high, "right")
        values = self.values[start:end]

        def before(bounds: Sequence[tuple[float | None, Literal["left", "right"]]]) -> list[int]:
            return [int(np.searchsorted(values, bound, side)) for bound, side in bounds if bound is not None]

        first = max(before([(range_.gt, "right"), (range_.gte, "left")]), default=0)
        behind = min(before([(range_.lt, "left"), (range_.lte, "right")]), default=len(values))
        some = slice(start + first, start + max(first, behind))
        found: Places = self.places[some][self.low[some] == low]
        return found


@dataclass(frozen=True, eq=False, slots=True)
class FilterIndex:
    """The inverted index of what filters match in some chunks.

    Attributes:
        chunks: How many they are.
        keywords: Of values, keys and documents.
        numbers: What ranges of numbers compare.
        times: Likewise, seconds since 1970.
    """

    chunks: int
    keywords: Postings
    numbers: Numbers
    times: Numbers

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return 20 * len(self.keywords.places) + 28 * (len(self.numbers.places) + len(self.times.places))

    def mask(self, asked: Asked) -> Mask:
        """Which chunks meet a condition: `(chunks,)` bool."""

        def found(condition: AnyOf | Exists | Range) -> Places:
            keywords = asked.keywords(condition)
            if isinstance(condition, Range):
                return (self.numbers if condition.kind == "number" else self.times).within(keywords, condition)
            return self.keywords.with_any(keywords)

        return mask_of(asked.condition, self.chunks, found)


class Asked:
    """A condition whose keywords are made once, for any number of indices.

    Args:
        condition: Of any kind.
    """

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self._keywords: dict[int, Keywords] = {}  # by the condition's identity: a 1 equals True

    def keywords(self, condition: AnyOf | Exists | Range) -> Keywords:
        """What a part of the condition looks for."""
        known = self._keywords.get(id(condition))
        if known is None:
            known = self._keywords[id(condition)] = _halves(bytes.fromhex("".join(dict.fromkeys(_digests(condition)))))
        return known


def _digests(condition: AnyOf | Exists | Range) -> Iterable[str]:
    if not isinstance(condition, AnyOf):
        return [condition.digest]
    if condition.key == DOCUMENT_ID:
        return [document_term(str(value)) for value in condition.values]
    return condition.terms


@dataclass(slots=True)
class _Gathered:
    """Numbers by key, chunk after chunk."""

    keys: bytearray = field(default_factory=bytearray)
    values: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("i"))

    def add(self, place: int, held: Iterable[tuple[str, Sequence[float]]]) -> None:
        for digest, values in held:
            self.keys.extend(bytes.fromhex(digest) * len(values))
            self.values.extend(values)
            self.places.extend([place] * len(values))

    def numbers(self) -> Numbers:
        return Numbers.of(
            *_halves(self.keys), np.frombuffer(self.values, np.float64), np.frombuffer(self.places, np.int32)
        )


class FilterIndexBuilder:
    """Gathers what filters match, chunk by chunk."""

    def __init__(self) -> None:
        self._keywords = bytearray()
        self._counts = array("i")
        self._numbers, self._times = _Gathered(), _Gathered()

    @property
    def nbytes(self) -> int:
        """Memory that the index will take."""
        return 20 * (len(self._keywords) // 16) + 28 * (len(self._numbers.values) + len(self._times.values))

    def add(self, payload: Payload) -> None:
        """The next chunk, of whose payload `FIELDS` are needed."""
        place = len(self._counts)
        keywords = [document_term(payload["document_id"]), *payload["terms"], *payload["keys"]]
        self._keywords.extend(bytes.fromhex("".join(keywords)))
        self._counts.append(len(keywords))
        held = payload["numbers"]
        if held:  # of which an engine may change the last bit; the text of the metadata has all
            held = {**held, **numbers(json.loads(payload["metadata"]))}
        self._numbers.add(place, held.items())
        self._times.add(place, payload["times"].items())

    def index(self) -> FilterIndex:
        """The index of all chunks so far; nothing may be added behind it."""
        n = len(self._counts)
        places = np.repeat(np.arange(n, dtype=np.int32), np.frombuffer(self._counts, np.int32))
        keywords = Postings.of(*_halves(self._keywords), places)
        return FilterIndex(n, keywords, self._numbers.numbers(), self._times.numbers())


def merged(parts: Sequence[tuple[FilterIndex, npt.NDArray[np.int64]]]) -> FilterIndex:
    """One index of some chunks of several, in their order.

    Args:
        parts: The indices, at least one, and the ascending places of the chunks that are kept of each.
    """
    n, now = 0, list[Places]()
    for index, wanted in parts:
        now.append(np.full(index.chunks, -1, np.int32))
        now[-1][wanted] = np.arange(n, n + len(wanted))
        n += len(wanted)

    def joined(some: Sequence[tuple[npt.NDArray[Any], ...]]) -> list[npt.NDArray[Any]]:
        """The columns of what is kept; the last are the places."""
        kept = []
        for (*columns, held), moved in zip(some, now, strict=True):
            alive = moved[held] >= 0
            kept.append([column[alive] for column in (*columns, moved[held])])
        return [np.concatenate(each) for each in zip(*kept, strict=True)]

    indices = [index for index, _ in parts]
    return FilterIndex(
        n,
        Postings.of(*joined([index.keywords for index in indices])),
        Numbers.of(*joined([index.numbers for index in indices])),
        Numbers.of(*joined([index.times for index in indices])),
    )


def _halves(digests: bytes | bytearray) -> Keywords:
    both = np.frombuffer(digests, ">u8").reshape(-1, 2)
    return both[:, 0].astype(np.uint64), both[:, 1].astype(np.uint64)
