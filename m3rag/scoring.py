"""The three scores of M3 and their weighted sum, brute force, in numpy.

The definitions of section 3 of the M3-Embedding paper (arXiv 2402.03216). Stores compute the same
scores on their own engines; these are the reference they are tested against.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError
from m3rag.output import FloatArray, M3Output
from m3rag.types import LEGS, SEARCH_LEGS, SearchLeg

ScoreMatrix = npt.NDArray[np.float32]
FusedLeg = TypeVar("FusedLeg", bound=SearchLeg)

LARGEST = sys.float_info.max


def dense_scores(queries: M3Output, passages: M3Output) -> ScoreMatrix:
    """Inner products of the dense vectors: `(queries, passages)` float32 in [-1, 1]."""
    scores: ScoreMatrix = queries.dense @ passages.dense.T
    return scores


def lexical_scores(queries: M3Output, passages: M3Output) -> ScoreMatrix:
    """Sums over shared tokens of the product of weights: `(queries, passages)` float32, >= 0."""
    scores: ScoreMatrix = (queries.lexical @ passages.lexical.T).toarray().astype(np.float32)
    return scores


def max_similarities(query: FloatArray, passage: FloatArray) -> npt.NDArray[np.float32]:
    """For each query token the best cosine among the passage's tokens: `(query tokens,)` float32.

    A passage without tokens has nothing to align with: every similarity is 0.
    """
    if len(passage) == 0:
        return np.zeros(len(query), np.float32)
    similarities = query.astype(np.float32) @ passage.astype(np.float32).T
    best: npt.NDArray[np.float32] = similarities.max(axis=1)
    return best


def colbert_scores(queries: M3Output, passages: M3Output) -> ScoreMatrix:
    """Mean over query tokens of the best cosine in the passage: `(queries, passages)` float32."""
    scores = np.zeros((len(queries), len(passages)), np.float32)
    filled = np.flatnonzero(np.diff(passages.offsets))
    if not len(filled):
        return scores
    vectors = passages.colbert.astype(np.float32)
    for q in range(len(queries)):
        tokens = queries.colbert_of(q).astype(np.float32)
        if len(tokens):
            similarities = tokens @ vectors.T  # (query tokens, all passage tokens)
            best = np.maximum.reduceat(similarities, passages.offsets[filled], axis=1)
            scores[q, filled] = best.mean(axis=0)
    return scores


LEG_SCORES = MappingProxyType({"dense": dense_scores, "lexical": lexical_scores, "colbert": colbert_scores})


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the legs in the fused score, such as `dense*d + lexical*l + colbert*c`.

    Attributes:
        dense: >= 0.
        lexical: >= 0.
        colbert: >= 0.
        bm25: >= 0; None for that of `lexical`, since BM25 takes the place of the lexical leg.
    """

    dense: float = 1.0
    lexical: float = 0.3
    colbert: float = 1.0
    bm25: float | None = None

    def __post_init__(self) -> None:
        each = [self.dense, self.lexical, self.colbert, self.of("bm25")]
        if not (all(isinstance(one, Real) and 0 <= one <= LARGEST for one in each) and 0 < sum(each) <= LARGEST):
            raise ConfigurationError(f"weights must be finite, as their sum, numbers >= 0 and not all 0, got {self}")

    def of(self, leg: SearchLeg) -> float:
        """The weight of one leg."""
        weight: float | None = getattr(self, leg)
        return self.lexical if weight is None else weight

    @classmethod
    def of_alpha(cls, alpha: float) -> Weights:
        """`alpha` for the dense leg and the rest of 1 for the keyword leg (lexical or BM25), as others write it.

        Raises:
            ConfigurationError: If alpha lies outside [0, 1].
        """
        if not 0 <= alpha <= 1:
            raise ConfigurationError(f"alpha is the part of the dense leg, from 0 (keywords alone) to 1, got {alpha}")
        return cls(alpha, 1 - alpha, 0.0)

    @classmethod
    def parse(cls, value: Weights | str, *, legs: Collection[SearchLeg] = LEGS) -> Weights:
        """Weights from a preset's name (`miracl`, `mkqa`, `mldr`) or from `"1/0.3/1"`.

        Args:
            value: The name, the three weights, or Weights already.
            legs: The legs that will be fused: the paper tuned dense + lexical apart from all three, so a
                preset's weights differ where ColBERT is not among them.

        Raises:
            ConfigurationError: If the text is neither.
        """
        if isinstance(value, Weights):
            return value
        if isinstance(value, str) and value in PRESETS:
            return (PRESETS if "colbert" in legs else TWO_LEG_PRESETS)[value]
        try:
            dense, lexical, colbert = (float(part) for part in value.split("/"))
        except (AttributeError, TypeError, ValueError):  # three numbers in a list are no text
            raise ConfigurationError(
                f"unknown weights {value!r}: give dense/lexical/colbert such as 1/0.3/1, or one of {', '.join(PRESETS)}"
            ) from None
        return cls(dense, lexical, colbert)


PRESETS: Mapping[str, Weights] = MappingProxyType(
    {
        "miracl": Weights(1.0, 0.3, 1.0),
        "mkqa": Weights(1.0, 0.3, 1.0),
        "mldr": Weights(0.15, 0.5, 0.35),
    }
)
"""Weights of all three legs by the paper's task (section 4); `miracl` is the default for passages."""

TWO_LEG_PRESETS: Mapping[str, Weights] = MappingProxyType(
    {
        "miracl": Weights(1.0, 0.3, 0.0),
        "mkqa": Weights(1.0, 0.3, 0.0),
        "mldr": Weights(0.2, 0.8, 0.0),
    }
)
"""The paper's weights of dense + lexical without ColBERT, by task."""


def fuse(scores: Mapping[FusedLeg, npt.NDArray[np.floating]], weights: Weights) -> npt.NDArray[np.float64]:
    """The weighted sum over the legs given, divided by the sum of their weights.

    Dividing keeps a fused score on the scale of its legs whatever the mode, and never changes an
    order; it is what FlagEmbedding's `compute_score` returns.

    Raises:
        ConfigurationError: If the weights of all the legs given are 0.
    """
    legs = sorted(scores, key=SEARCH_LEGS.index)
    total = sum(weights.of(leg) for leg in legs)
    if total <= 0:
        raise ConfigurationError(f"the legs {', '.join(legs)} all have weight 0 in {weights}")
    # Shares instead of weights: a leg alone has the share 1, and its scores stay as they are.
    return np.asarray(sum(np.asarray(scores[leg], np.float64) * (weights.of(leg) / total) for leg in legs))


def order_of(scores: npt.NDArray[np.floating], ids: Sequence[str]) -> list[int]:
    """Positions of the ids `(n,)`, best score first, ties by id."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    if (ordered[1:] == ordered[:-1]).any():
        # Positions in the order of their ids make a stable sort break ties by id.
        by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
        order = by_id[np.argsort(-scores[by_id], kind="stable")]
    best: list[int] = order.tolist()
    return best
