"""How the scores of several legs become one: a weighted sum, raw or normalised, or reciprocal ranks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError
from m3rag.scoring import FusedLeg, Weights, fuse, order_of
from m3rag.types import KEYWORD_LEGS, SEARCH_LEGS, SearchLeg

Fusion = Literal["weighted", "minmax", "zscore", "rrf"]
"""How legs are fused; the result is always divided by the sum of the weights, except in `rrf`.

- `weighted`: the exact scores as they are. The one fusion in which a chunk's score depends on nothing
  but the question and the chunk, and the paper's. BM25 has no bound, so it cannot take part.
- `minmax`: of each leg `(score - lowest) / (highest - lowest)`, so from 0 to 1.
- `zscore`: of each leg `(score - mean) / standard deviation` (of the population).
- `rrf`: the sum of `weight / (rrf_k + rank)`, ranks from 1.

Lowest, highest, mean, deviation and rank are those among all chunks that the search scored in the
leg: the united candidates, and in mode `all` the reranked ones for ColBERT. So they shift with
`candidates`, `rerank_depth` and the filter. A leg in which all of these score the same, as a single one
does, gives each of them 0 in `zscore`, and in `minmax` 1 (0 where that score is not above 0), as OpenSearch
and LlamaIndex do: else a threshold would drop the only hit. Sharing no token with the question is a lexical
or BM25 score of 0 like any other, except in `rrf`, where such a chunk has no rank and gets nothing from the leg.
"""

Scores = npt.NDArray[np.float64]

RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion" (SIGIR 2009)."""


def parse_fusion(value: str) -> Fusion:
    """A fusion from its name.

    Raises:
        ConfigurationError: If there is no such fusion; the message names those there are.
    """
    for name in get_args(Fusion):
        if value == name:
            fusion: Fusion = name
            return fusion
    raise ConfigurationError(f"unknown fusion {value!r}: choose one of {', '.join(get_args(Fusion))}")


def ranks_of(scores: npt.NDArray[np.floating], ids: Sequence[str]) -> dict[str, int]:
    """The rank of each id, from 1 for the best score; ties by id, so no two ids share a rank."""
    return {ids[i]: rank for rank, i in enumerate(order_of(scores, ids), start=1)}


def rrf(ranks: Mapping[FusedLeg, Mapping[str, int]], weights: Weights, *, k: float = RRF_K) -> dict[str, float]:
    """Reciprocal rank fusion: the sum over legs of `weight / (k + rank)`.

    Args:
        ranks: For each leg the rank, from 1, of each id that it found; an id missing from a leg gets
            nothing from it.
        weights: Weights of the legs; all equal is the method as published.
        k: How little the very first ranks stand out; >= 0.

    Returns:
        The fused score of every id that any leg ranks, in (0, sum of weights / (k + 1)].

    Raises:
        ConfigurationError: If `k` is negative.
    """
    if not k >= 0:
        raise ConfigurationError(f"the k of reciprocal rank fusion must be >= 0, got {k}")
    parts: dict[str, list[float]] = {}
    for leg, ranked in ranks.items():
        for key, rank in ranked.items():
            parts.setdefault(key, []).append(weights.of(leg) / (k + rank))
    # Rounded once: added leg by leg, the same ranks in other legs would be no tie.
    return {key: math.fsum(of) for key, of in parts.items()}


def minmax(scores: Scores, pool: Scores) -> Scores:
    """Scores `(n,)` on the scale from 0 (the lowest of a pool) to 1 (its highest; a pool of one score above 0 too)."""
    low, high = (pool.min(), pool.max()) if len(pool) else (0.0, 0.0)
    scaled: Scores = (scores - low) / (high - low) if high > low else np.full(len(scores), float(high > 0))
    return scaled


def zscore(scores: Scores, pool: Scores) -> Scores:
    """How many standard deviations scores `(n,)` lie above the mean of a pool; 0 where the pool is all one."""
    # Equal numbers may have a deviation of rounding errors, which must not be divided by.
    if not len(pool) or pool.min() == pool.max():
        return np.zeros(len(scores))
    scaled: Scores = (scores - pool.mean()) / pool.std()
    return scaled


@dataclass(frozen=True)
class Candidates:
    """Chunks with their exact scores in the legs that were looked at.

    Attributes:
        ids: The chunks' ids, `n` of them.
        scores: For each leg `(n,)` float64.
        ranks: For each leg the rank of each id, from 1, among all that were scored in the leg: they
            outlive a selection, so that a rank is out of the same number for every hit.
        pools: For each leg the scores of all that were scored in it, which normalisation is over.
        found: For each leg that brought candidates the ids of those.
    """

    ids: Sequence[str]
    scores: Mapping[SearchLeg, Scores]
    ranks: Mapping[SearchLeg, Mapping[str, int]]
    pools: Mapping[SearchLeg, Scores]
    found: Mapping[SearchLeg, Collection[str]] = field(default_factory=dict)

    @classmethod
    def scored(
        cls,
        ids: Sequence[str],
        scores: Mapping[SearchLeg, Scores],
        found: Mapping[SearchLeg, Collection[str]] | None = None,
    ) -> Candidates:
        """Candidates ranked by the scores given."""
        ranks = {leg: ranks_of(values, ids) for leg, values in scores.items()}
        return cls(ids, scores, ranks, scores, found or {})

    def joined(self, other: Candidates) -> Candidates:
        """The candidates of `other`, a part of these, with the scores and ranks of both."""
        position = {key: i for i, key in enumerate(self.ids)}
        rows = np.array([position[key] for key in other.ids], np.int64)
        own = {leg: values[rows] for leg, values in self.scores.items()}
        return Candidates(
            other.ids,
            {**own, **other.scores},
            {**self.ranks, **other.ranks},
            {**self.pools, **other.pools},
            {**self.found, **other.found},
        )

    def united(self, other: Candidates) -> Candidates:
        """What was scored in either of two searches in the same legs, ranked among all of it."""
        pools = {leg: {**self._pool(leg), **other._pool(leg)} for leg in self.scores}
        ids = list(dict.fromkeys([*self.ids, *other.ids]))
        values = {leg: np.array(list(pool.values()), np.float64) for leg, pool in pools.items()}
        return Candidates(
            ids,
            {leg: np.array([pool[key] for key in ids], np.float64) for leg, pool in pools.items()},
            {leg: ranks_of(values[leg], list(pool)) for leg, pool in pools.items()},
            values,
            {leg: {*self.found.get(leg, ()), *other.found.get(leg, ())} for leg in {*self.found, *other.found}},
        )

    def _pool(self, leg: SearchLeg) -> dict[str, float]:
        """The score of every id that was scored in a leg: ranks are in the order of the scores."""
        return dict(zip(self.ranks[leg], sorted(self.pools[leg].tolist(), reverse=True), strict=True))

    def found_by(self, key: str) -> tuple[SearchLeg, ...]:
        """The legs whose own candidates held an id, in the order of the legs."""
        return tuple(leg for leg in SEARCH_LEGS if key in self.found.get(leg, ()))

    def fused(self, weights: Weights, *, fusion: Fusion, rrf_k: float = RRF_K) -> Scores:
        """One score for each candidate, `(n,)`, as `Fusion` says.

        Raises:
            ConfigurationError: If the legs looked at all have weight 0.
        """
        if fusion == "weighted":
            return fuse(self.scores, weights)
        if fusion == "rrf":
            fused = rrf({leg: self._matching(leg) for leg in self.scores}, weights, k=rrf_k)
            return np.array([fused.get(key, 0.0) for key in self.ids], np.float64)
        scale = minmax if fusion == "minmax" else zscore
        return fuse({leg: scale(values, self.pools[leg]) for leg, values in self.scores.items()}, weights)

    def _matching(self, leg: SearchLeg) -> dict[str, int]:
        """Ranks of what a leg found. Chunks that share no token with the query all score 0 in a
        keyword leg: ranks among them are the order of their ids, which says nothing.
        """
        pairs = zip(self.ids, self.scores[leg].tolist(), strict=True)
        return {key: self.ranks[leg][key] for key, score in pairs if leg not in KEYWORD_LEGS or score > 0}
