"""The scores of FlagEmbedding's `BGEM3FlagModel`, by its names and in its shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m3rag.errors import ConfigurationError, InputError
from m3rag.output import FloatArray, M3Output
from m3rag.scoring import Weights, fuse, max_similarities
from m3rag.types import Leg

LexicalWeights = Mapping[str, float]


def mode_weights(given: Sequence[float] | None) -> Weights:
    """Weights of dense, sparse and ColBERT, in this order; equal by default.

    Raises:
        ConfigurationError: If they are not three numbers >= 0, not all 0.
    """
    if given is None:
        return Weights(1.0, 1.0, 1.0)
    if len(given) != 3:
        raise ConfigurationError(f"weights_for_different_modes must be three (dense, sparse, ColBERT), got {given!r}")
    return Weights(*given)


def score_pairs(queries: M3Output, passages: M3Output, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """Dense, lexical and ColBERT score of each pair of a query's and a passage's number: `(n, 3)` float64."""
    left, right = np.array(pairs).T
    dense = np.einsum("ij,ij->i", queries.dense[left], passages.dense[right])
    lexical = queries.lexical[left].multiply(passages.lexical[right]).sum(axis=1)
    colbert = [max_similarities(queries.colbert_of(i), passages.colbert_of(j)).mean() for i, j in pairs]
    return np.array([dense, lexical, colbert], np.float64).T


def score_columns(scores: FloatArray, weights: Weights) -> dict[str, list[float]]:
    """All the modes of `compute_score`, from the `(n, 3)` that `score_pairs` gives."""
    dense, lexical, colbert = scores.T
    without_colbert = weights.dense or weights.lexical
    two: dict[Leg, FloatArray] = {"dense": dense, "lexical": lexical}
    columns = {
        "colbert": colbert,
        "sparse": lexical,
        "dense": dense,
        "sparse+dense": fuse(two, weights) if without_colbert else np.full(len(scores), np.nan),
        "colbert+sparse+dense": fuse({**two, "colbert": colbert}, weights),
    }
    return {name: column.tolist() for name, column in columns.items()}


def lexical_matching_scores(
    first: LexicalWeights | Sequence[LexicalWeights], second: LexicalWeights | Sequence[LexicalWeights]
) -> Any:
    """A number for the weights of two texts, an array `(n, m)` for two lists of them.

    Raises:
        InputError: If one is a text's and the other a list.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return _lexical_score(first, second)
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        raise InputError("lexical weights must be two dicts or two lists of dicts, got one of each")
    scores = [[_lexical_score(one, other) for other in second] for one in first]
    return np.array(scores).reshape(len(first), len(second))


def readable(weights: LexicalWeights, token: Callable[[int], str]) -> dict[str, float]:
    """Weights by token as it reads in a text; of two that read the same, the larger."""
    found: dict[str, float] = {}
    for token_id, weight in weights.items():
        text = token(int(token_id)).replace("▁", " ").removeprefix(" ")
        found[text] = max(weight, found.get(text, weight))
    return found


def _lexical_score(first: LexicalWeights, second: LexicalWeights) -> Any:
    return sum(weight * second[token] for token, weight in first.items() if token in second)
