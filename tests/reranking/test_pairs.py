from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import InputError
from m3rag.reranking.pairs import PairTokenizer, require_pairs, windows


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))), st.integers(1, 40))
def test_windows_hold_every_pair_once_in_order(pairs: list[tuple[str, str]], characters: int) -> None:
    found = list(windows(pairs, characters=characters))
    assert [pair for _, window in found for pair in window] == pairs
    assert [start for start, _ in found] == [sum(len(w) for _, w in found[:i]) for i in range(len(found))]
    for _, window in found:
        assert len(window) > 0
        assert sum(len(q) + len(p) for q, p in window[:-1]) < characters


@pytest.mark.parametrize("odd", [None, iter([("a", "b")]), {"a": "b", "c": "d"}, {("a", "b")}])
def test_what_is_no_list_of_pairs_is_named(odd: Any) -> None:
    with pytest.raises(InputError, match=f"got a {type(odd).__name__}; make it one with list"):
        require_pairs(odd)


def test_a_pair_of_bert_has_types(bert: Path) -> None:
    tokenizer = PairTokenizer(bert / "tokenizer.json")
    (pair,), cut = tokenizer.encode([("ducks swim", "ducks")], query_max_length=5, max_length=12)
    assert pair.types.tolist() == [0, 0, 0, 0, 1, 1]
    assert pair.ids[[0, 3, 5]].tolist() == [2, 3, 3]
    assert tokenizer.specials == 3
    assert cut == 0


@pytest.mark.parametrize(("query", "passage", "lengths", "cut"), [(3, 3, 10, 0), (9, 3, 12, 1), (3, 30, 20, 1)])
def test_the_passage_gets_the_room_that_the_question_leaves(
    xlmr: Path, query: int, passage: int, lengths: int, cut: int
) -> None:
    tokenizer = PairTokenizer(xlmr / "tokenizer.json")
    texts = [" ".join(["a"] * query), " ".join(["b"] * passage)]
    found = tokenizer.encode([(texts[0], texts[1])], query_max_length=5, max_length=20)
    assert [len(pair.ids) for pair in found.pairs] == [lengths]
    assert found.cut == cut
    assert found.pairs[0].ids[-1] == 2
