"""BM25 over plain texts: order, ties, and the edges that the packages themselves do not take."""

from __future__ import annotations

import pytest

from m3rag.bm25 import BM25Index
from m3rag.errors import InputError

TEXTS = ["ducks swim and ducks dive", "geese fly south", "a swan", "geese swim past ducks", "", "the and of"]


def test_k_cuts_and_ties_go_by_position() -> None:
    index = BM25Index(tokenize=str.split).fit(["x y", "y z", "w", "y q"])
    assert [[i for i, _ in hits] for hits in index.search(["y", "w"], k=2)] == [[0, 1], [2]]


def test_best_first() -> None:
    (found,) = BM25Index(tokenize=str.split).fit(TEXTS).search(["geese swim"])
    assert [i for i, _ in found] == [3, 1, 0]
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_nothing_shared_is_no_hit() -> None:
    index = BM25Index().fit(TEXTS)
    assert index.search(["penguins", "", "the"], k=3) == [[], [], []]
    assert BM25Index().fit([]).search(["ducks"]) == [[]]
    assert BM25Index().fit(["", "the"]).search(["ducks"]) == [[]]


def test_a_shared_token_is_a_hit_whatever_it_scores() -> None:
    # In the classic variant a token that half of the texts have is worth nothing.
    index = BM25Index(tokenize=str.split, method="okapi").fit(["x", "y"])
    assert index.search(["y"]) == [[(1, 0.0)]]


def test_texts_are_replaced() -> None:
    index = BM25Index(tokenize=str.split).fit(["x"])
    assert index.fit(["y", "x"]).search(["x"])[0][0][0] == 1


def test_use_is_explained() -> None:
    with pytest.raises(InputError, match=r"call fit\(texts\)"):
        BM25Index().search(["ducks"])
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        BM25Index().fit(TEXTS).search(["ducks"], k=0)
    with pytest.raises(InputError, match=r"k must be a whole number, got 2\.5"):
        BM25Index().fit(TEXTS).search(["ducks"], k=2.5)  # type: ignore[arg-type]
