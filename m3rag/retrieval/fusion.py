"""How the scores of several legs become one: a weighted sum, or reciprocal ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError
from m3rag.scoring import Weights, fuse
from m3rag.types import Leg

Fusion = Literal["weighted", "rrf"]

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


def order_of(scores: npt.NDArray[np.floating], ids: Sequence[str]) -> list[int]:
    """Positions of the ids `(n,)`, best score first, ties by id."""
    values = scores.tolist()
    return sorted(range(len(ids)), key=lambda i: (-values[i], ids[i]))


def ranks_of(scores: npt.NDArray[np.floating], ids: Sequence[str]) -> dict[str, int]:
    """The rank of each id, from 1 for the best score; ties by id, so no two ids share a rank."""
    return {ids[i]: rank for rank, i in enumerate(order_of(scores, ids), start=1)}


def rrf(ranks: Mapping[Leg, Mapping[str, int]], weights: Weights, *, k: int = RRF_K) -> dict[str, float]:
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
    if k < 0:
        raise ConfigurationError(f"the k of reciprocal rank fusion must be >= 0, got {k}")
    fused: dict[str, float] = {}
    for leg, ranked in ranks.items():
        for key, rank in ranked.items():
            fused[key] = fused.get(key, 0.0) + weights.of(leg) / (k + rank)
    return fused


@dataclass(frozen=True)
class Candidates:
    """Chunks with their exact scores in the legs that were looked at.

    Attributes:
        ids: The chunks' ids, `n` of them.
        scores: For each leg `(n,)` float64.
        ranks: For each leg the rank of each id, from 1, among all that were scored in the leg: they
            outlive a selection, so that a rank is out of the same number for every hit.
    """

    ids: Sequence[str]
    scores: Mapping[Leg, npt.NDArray[np.float64]]
    ranks: Mapping[Leg, Mapping[str, int]]

    @classmethod
    def scored(cls, ids: Sequence[str], scores: Mapping[Leg, npt.NDArray[np.float64]]) -> Candidates:
        """Candidates ranked by the scores given."""
        return cls(ids, scores, {leg: ranks_of(values, ids) for leg, values in scores.items()})

    def joined(self, other: Candidates) -> Candidates:
        """The candidates of `other`, a part of these, with the scores and ranks of both."""
        position = {key: i for i, key in enumerate(self.ids)}
        rows = np.array([position[key] for key in other.ids], np.int64)
        own = {leg: values[rows] for leg, values in self.scores.items()}
        return Candidates(other.ids, {**own, **other.scores}, {**self.ranks, **other.ranks})

    def fused(self, weights: Weights, *, fusion: Fusion) -> npt.NDArray[np.float64]:
        """One score for each candidate, `(n,)`: `m3rag.scoring.fuse`, or `rrf` of the ranks.

        Raises:
            ConfigurationError: If the legs looked at all have weight 0.
        """
        if fusion == "weighted":
            return fuse(self.scores, weights)
        fused = rrf({leg: self._found(leg) for leg in self.scores}, weights)
        return np.array([fused.get(key, 0.0) for key in self.ids], np.float64)

    def _found(self, leg: Leg) -> dict[str, int]:
        """Ranks of what a leg found. Chunks that share no token with the query all score 0 in the
        lexical leg: ranks among them are the order of their ids, which says nothing.
        """
        pairs = zip(self.ids, self.scores[leg].tolist(), strict=True)
        return {key: self.ranks[leg][key] for key, score in pairs if leg != "lexical" or score > 0}
