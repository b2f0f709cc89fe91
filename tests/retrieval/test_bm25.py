"""BM25 against the formula written out, and at the edges that bm25s itself does not take."""

from __future__ import annotations

import math
import sys

import pytest

from m3rag.errors import InputError
from m3rag.retrieval import BM25Index
from m3rag.retrieval.bm25 import english_tokenizer, is_stemming

TEXTS = ["ducks swim and ducks dive", "geese fly south", "a swan", "geese swim past ducks", "", "the and of"]


def bm25(query: list[str], documents: list[list[str]]) -> list[float]:
    """Lucene's BM25 (k1 = 1.5, b = 0.75), without the constant factor k1 + 1."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query:
            n = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            f = document.count(word)
            score += idf * f / (f + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(score)
    return scores


def test_scores_are_those_of_the_formula() -> None:
    index = BM25Index(tokenize=str.split).fit(TEXTS)
    for query in ("ducks", "geese swim", "ducks ducks south", "swan unknown"):
        expected = bm25(query.split(), [text.split() for text in TEXTS])
        (found,) = index.search([query], k=10)
        assert dict(found) == pytest.approx({i: s for i, s in enumerate(expected) if s > 0}, rel=1e-5)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)


def test_k_cuts_and_ties_go_by_position() -> None:
    index = BM25Index(tokenize=str.split).fit(["x y", "y z", "w", "y q"])
    assert [[i for i, _ in hits] for hits in index.search(["y", "w"], k=2)] == [[0, 1], [2]]


def test_nothing_shared_is_no_hit() -> None:
    index = BM25Index().fit(TEXTS)
    assert index.search(["penguins", "", "the"], k=3) == [[], [], []]
    assert BM25Index().fit([]).search(["ducks"]) == [[]]
    assert BM25Index().fit(["", "the"]).search(["ducks"]) == [[]]


def test_the_english_pipeline() -> None:
    words = english_tokenizer()("The Ducks' 2 ponds, and a LAKE")
    assert words == (["duck", "pond", "lake"] if is_stemming() else ["ducks", "ponds", "lake"])


def test_use_is_explained() -> None:
    with pytest.raises(InputError, match=r"call fit\(texts\)"):
        BM25Index().search(["ducks"])
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        BM25Index().fit(TEXTS).search(["ducks"], k=0)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[bm25\]"'):
        BM25Index()
