"""Scores of hits as LangChain's relevance: from 0 to 1, more is better."""

from __future__ import annotations

import math
from collections.abc import Callable

from m3rag.retrieval.mode import Mode
from m3rag.retrieval.options import Plan
from m3rag.types import Hit


def relevance_of(search: Plan) -> Callable[[Hit], float]:
    """The relevance of the hits of one search, in [0, 1]; the order of hits stays.

    - `weighted` (the default): the score itself, cut to [0, 1]. So a threshold means what it means for
      `hit.score`, and of dense vectors alone it is the cosine.
    - `minmax`: the score itself.
    - `rrf`: the score divided by the largest there can be, that of rank 1 in every leg.
    - `zscore`: 1 / (1 + exp(-score)), so .5 for the mean of what the search looked at.
    - mode `bm25`, whose scores have no bound: score / (1 + score).
    - hits that a reranker ordered: 1 / (1 + exp(-score)), of a cross-encoder's logits the probability that
      the passage is relevant.
    """
    most = sum(search.weights.of(leg) for leg in search.mode.legs) / (search.rrf_k + 1)

    def relevance(hit: Hit) -> float:
        score = hit.score
        if hit.scores.rerank is not None or search.fusion == "zscore":
            return _logistic(score)
        if search.fusion == "rrf":
            return _within(score / most)
        if search.mode is Mode.BM25 and search.fusion == "weighted":
            return score / (1 + score)
        return _within(score)

    return relevance


def _logistic(score: float) -> float:
    # Of -1000 the exponential would overflow; tanh does not.
    return 0.5 * (1 + math.tanh(score / 2))


def _within(score: float) -> float:
    return min(max(score, 0.0), 1.0)
