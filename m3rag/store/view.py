"""What a store keeps in memory to be searched: dense vectors and lexical weights by position.

A view never changes, so readers need no lock; a writer makes a new one that shares most of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, vstack

from m3rag.output import M3Output
from m3rag.scoring import order_of
from m3rag.store.dense_codes import DenseCodes, Floats, exact_dots
from m3rag.store.filter_index import Asked, FilterIndex, Mask, merged
from m3rag.store.filters import Condition

Positions = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)
FirstStage = Literal["dense", "lexical"]
"""The legs that bring candidates, which need little memory a chunk."""

BY_CODES_FROM = 4_000
"""Chunks of a segment from which its dense vectors are scanned by their codes: fewer are as fast by themselves."""

SLACK = 1e-5  # float32 sums of other orders differ by less; what is that near to the k-th is scored exactly


@dataclass(frozen=True, eq=False)
class Segment:
    """Chunks that came in together.

    Attributes:
        rows: `(n,)` int64, the chunks' numbers in their store; a side store's ascend.
        ids: The chunks' ids.
        dense: `(n, d)` float32.
        lexical: `(n, vocab)` float32 by columns: the postings of each token.
        places: Chunk id to the index in this segment.
        filters: What filters match; None where the store has that elsewhere.
    """

    rows: Positions
    ids: tuple[str, ...]
    dense: npt.NDArray[np.float32]
    lexical: csc_array
    places: dict[str, int]
    filters: FilterIndex | None = None

    @classmethod
    def of(
        cls, rows: Positions, ids: Iterable[str], dense: Floats, lexical: csc_array, filters: FilterIndex | None = None
    ) -> Segment:
        """A segment of some chunks."""
        ids = tuple(ids)
        return cls(rows, ids, dense, lexical, {id_: place for place, id_ in enumerate(ids)}, filters)

    @cached_property
    def codes(self) -> DenseCodes | None:
        """By what the dense vectors are scanned; None for the vectors themselves."""
        codes = DenseCodes.of(self.dense) if len(self.ids) >= BY_CODES_FROM else None
        return codes if codes is not None and codes.hold_for(self.dense) else None

    def estimates(self, query: npt.NDArray[np.float32], places: Positions) -> tuple[Floats, Floats]:
        """Dense scores `(n,)` at some ascending places, near enough to choose by, and how far off each may be."""
        if 4 * len(places) < len(self.ids):  # copying a few rows is cheaper than reading all
            return self.dense[places] @ query, np.full(len(places), SLACK, np.float32)
        if self.codes is None:
            scores, doubts = self.dense @ query, np.full(len(self.ids), SLACK, np.float32)
        else:
            scores, doubts = self.codes.estimates(query)
        return _at(scores, places), _at(doubts, places)


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """All chunks at one moment; a chunk's position is its place in the segments one after the other.

    Attributes:
        segments: From the oldest to the newest.
        starts: Where each segment begins, and where the last ends.
        rows: `(n,)` int64, all rows.
        alive: `(n,)` bool, False where a chunk has been removed.
    """

    segments: tuple[Segment, ...]
    starts: tuple[int, ...]
    rows: Positions
    alive: Mask

    @classmethod
    def of(cls, segments: Sequence[Segment], alive: Mask | None = None) -> View:
        """The view of some segments, everything alive unless told otherwise."""
        starts = [0]
        for segment in segments:
            starts.append(starts[-1] + len(segment.ids))
        rows = np.concatenate([np.zeros(0, np.int64), *(segment.rows for segment in segments)])
        return cls(tuple(segments), tuple(starts), rows, np.ones(len(rows), bool) if alive is None else alive)

    def __len__(self) -> int:
        return int(self.alive.sum())

    def changed(self, *, removed: Positions, added: Segment, compact: bool = False) -> View:
        """The view without some positions and with a new segment.

        Segments are merged as their sizes come near each other, so that there are few of them and a
        chunk is copied a logarithmic number of times; all of them where half is gone.

        Args:
            removed: Ascending positions.
            added: May be empty.
            compact: Merge all of them anyway.
        """
        alive = self.alive.copy()
        alive[removed] = False
        segments = [*self.segments, added] if added.ids else list(self.segments)
        parts = [alive[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        if added.ids:
            parts.append(np.ones(len(added.ids), bool))
        while len(segments) > 1 and 2 * len(segments[-1].ids) > len(segments[-2].ids):
            segments[-2:], parts[-2:] = _merged(segments[-2:], parts[-2:])
        if compact or sum(int(part.sum()) for part in parts) * 2 < sum(len(part) for part in parts):
            segments, parts = _merged(segments, parts)
        return View.of(segments, np.concatenate([np.zeros(0, bool), *parts]))

    def half_gone(self, changes: int) -> bool:
        """Whether less than half may be alive after so many were added, replaced or removed."""
        return 2 * (len(self) - changes) < len(self.rows) and len(self.rows) > 0

    def merged_by(self, changes: int) -> int:
        """How many chunks `changed` copies at most for so many, all of them where half may be gone."""
        if self.half_gone(changes):
            return len(self.rows) + changes
        merged = changes
        for segment in reversed(self.segments):
            if 2 * merged <= len(segment.ids):
                break
            merged += len(segment.ids)
        return merged

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """The positions of the ids that are stored, in the order given, each once."""
        names = list(dict.fromkeys(ids))
        found = np.full(len(names), -1, np.int64)
        for start, segment in zip(self.starts[:-1], self.segments, strict=True):
            at = np.fromiter((segment.places.get(id_, -1) for id_ in names), np.int64, len(names))
            here = np.flatnonzero(at >= 0)
            here = here[self.alive[start + at[here]]]  # in one segment at most
            found[here] = start + at[here]
        return {id_: position for id_, position in zip(names, found.tolist(), strict=True) if position >= 0}

    def ids(self, positions: Positions) -> list[str]:
        """The ids at some ascending positions."""
        return [segment.ids[place] for segment, places in self._by_segment(positions) for place in places.tolist()]

    def positions(self, rows: Positions) -> Positions:
        """The positions of those of some rows that are in the view, alive or not, ascending."""
        found: Positions = np.flatnonzero(np.isin(self.rows, rows, assume_unique=False))
        return found

    def where(self, condition: Condition) -> Positions:
        """The ascending positions of the chunks that meet a condition; every segment has `filters`."""
        asked, masks = Asked(condition), [np.zeros(0, bool)]
        for segment in self.segments:
            assert segment.filters is not None
            masks.append(segment.filters.mask(asked))
        found: Positions = np.flatnonzero(self.alive & np.concatenate(masks))
        return found

    def dense_at(self, positions: Positions) -> npt.NDArray[np.float32]:
        """The dense vectors `(n, d)` float32 at some ascending positions, at least one."""
        return np.concatenate([segment.dense[places] for segment, places in self._by_segment(positions)])

    def dense_scores(self, query: M3Output, positions: Positions) -> npt.NDArray[np.float64]:
        """The exact dense scores at some ascending positions: the same for the same vector anywhere (BLAS is not)."""
        vector = np.ascontiguousarray(query.dense[0], np.float32)
        scores = [exact_dots(vector, segment.dense[places]) for segment, places in self._by_segment(positions)]
        return np.concatenate([np.zeros(0), *scores])

    def best_dense(self, query: M3Output, positions: Positions, k: int) -> Positions:
        """At least the best `k` by dense score among some ascending positions, ties included, ascending."""
        vector = np.ascontiguousarray(query.dense[0], np.float32)
        if not len(positions):
            return positions
        found = [segment.estimates(vector, places) for segment, places in self._by_segment(positions)]
        scores, doubts = (np.concatenate(each) for each in zip(*found, strict=True))
        return positions[near_best(scores, k, doubts)]

    def lexical_scores(self, query: M3Output, positions: Positions) -> npt.NDArray[np.float64]:
        """The exact lexical scores at some ascending positions."""
        tokens = query.lexical.indices
        weights = query.lexical.data.astype(np.float64)
        scores = [_at(segment.lexical[:, tokens] @ weights, places) for segment, places in self._by_segment(positions)]
        return np.concatenate([np.zeros(0), *scores])

    def candidates(
        self, query: M3Output, leg: FirstStage, *, k: int, among: Positions | None = None
    ) -> list[tuple[str, float]]:
        """See `Store.candidates`; `among` are ascending positions, None for all that are alive."""
        positions = np.flatnonzero(self.alive) if among is None else among
        if leg == "dense":
            near = self.best_dense(query, positions, k)
            return self.best(near, self.dense_scores(query, near), k)
        scores = self.lexical_scores(query, positions)
        shared = scores > 0
        return self.best(positions[shared], scores[shared], k)

    def score(self, query: M3Output, leg: FirstStage, chunk_ids: Sequence[str]) -> dict[str, float]:
        """See `Store.score`."""
        found = self.find(chunk_ids)
        positions = np.array(sorted(found.values()), np.int64)
        scores = self.dense_scores(query, positions) if leg == "dense" else self.lexical_scores(query, positions)
        return by_id(found, positions, scores)

    def best(self, positions: Positions, scores: npt.NDArray[np.float64], k: int) -> list[tuple[str, float]]:
        """The best `k` of some ascending positions by their scores: (chunk id, score), best first, ties by id."""
        near = near_best(scores, k)
        ids, values = self.ids(positions[near]), scores[near]
        return [(ids[i], float(values[i])) for i in order_of(values, ids)[:k]]

    def _by_segment(self, positions: Positions) -> list[tuple[Segment, Positions]]:
        cuts = np.searchsorted(positions, self.starts)
        return [
            (segment, positions[a:b] - start)
            for segment, start, a, b in zip(self.segments, self.starts[:-1], cuts[:-1], cuts[1:], strict=True)
            if b > a
        ]


def by_id(found: Mapping[str, int], positions: Positions, scores: npt.NDArray[np.floating]) -> dict[str, float]:
    """The scores at some positions, by the ids that were found there."""
    at = dict(zip(positions.tolist(), scores.tolist(), strict=True))
    return {id_: at[position] for id_, position in found.items()}


def _at(values: npt.NDArray[Number], places: Positions) -> npt.NDArray[Number]:
    """Some values at ascending places: not copied where these are all."""
    return values if len(places) == len(values) else values[places]


def near_best(scores: npt.NDArray[np.floating], k: int, doubts: npt.NDArray[np.floating] | float = SLACK) -> Positions:
    """Where the best `k` scores stand, and all that may be as good, by how far off each may be; ascending."""
    if len(scores) <= k:
        return np.arange(len(scores))
    least = np.partition(scores - doubts, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores + doubts >= least)


def _merged(segments: Sequence[Segment], alive: Sequence[Mask]) -> tuple[list[Segment], list[Mask]]:
    """One segment of what is alive in some, or none."""
    kept = [np.flatnonzero(mask) for mask in alive]
    if not sum(map(len, kept)):
        return [], []
    pairs = list(zip(segments, kept, strict=True))
    filters = [(segment.filters, places) for segment, places in pairs if segment.filters is not None]
    joined = Segment.of(
        np.concatenate([segment.rows[places] for segment, places in pairs]),
        (segment.ids[place] for segment, places in pairs for place in places.tolist()),
        np.concatenate([segment.dense[places] for segment, places in pairs]),
        # Rows are selected and joined in linear time in CSR only.
        csc_array(vstack([segment.lexical.tocsr()[places] for segment, places in pairs], format="csr").tocsc()),
        merged(filters) if filters else None,
    )
    return [joined], [np.ones(len(joined.ids), bool)]
