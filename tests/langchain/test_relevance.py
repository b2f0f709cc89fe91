from __future__ import annotations

import math
from typing import Any

import pytest

from m3rag.langchain.relevance import relevance_of
from m3rag.retrieval.options import plan
from m3rag.types import Chunk, Hit, LegScores


def relevance(score: float, *, reranked: bool = False, **options: Any) -> float:
    search = plan(default_weights="miracl", default_fusion=None, **options)
    chunk = Chunk("a", "a", "", 0, 0)
    return relevance_of(search)(Hit(chunk, score, LegScores(rerank=score if reranked else None)))


@pytest.mark.parametrize(
    ("options", "score", "expected"),
    [
        ({}, 0.4, 0.4),
        ({}, -0.2, 0.0),
        ({}, 1.3, 1.0),
        ({"mode": "dense"}, 0.4, 0.4),
        ({"fusion": "minmax"}, 0.4, 0.4),
        ({"mode": "dense+bm25"}, 0.4, 0.4),
        ({"fusion": "zscore"}, 0.0, 0.5),
        ({"fusion": "zscore"}, -2000.0, 0.0),
        ({"fusion": "rrf", "weights": "1/1/1"}, 3 / 61, 1.0),
        ({"fusion": "rrf", "weights": "1/1/1", "rrf_k": 0}, 1.5, 0.5),
        ({"mode": "bm25"}, 9.0, 0.9),
        ({"mode": "bm25"}, 0.0, 0.0),
    ],
)
def test_scores_of_every_scale_become_relevance(options: dict[str, Any], score: float, expected: float) -> None:
    assert math.isclose(relevance(score, **options), expected, abs_tol=1e-12)


def test_a_rerankers_score_is_a_logit() -> None:
    assert math.isclose(relevance(2.0, reranked=True), 1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("options", [{}, {"fusion": "zscore"}, {"fusion": "rrf"}, {"mode": "bm25"}, {"reranked": True}])
def test_the_order_stays_and_0_to_1_holds(options: dict[str, Any]) -> None:
    scores = [0.0, 1e-3, 0.02, 0.5, 3.0, 400.0]
    found = [relevance(score, **options) for score in scores]
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= 1
