from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.encoder.batching import pack, plan_batches, token_numbers
from m3rag.encoder.checkpoint import Pooling

CLS, END = 0, 2


def text_of(*content: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([CLS, *content, END], np.int64)


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4000), st.integers(1, 50))
def test_each_text_once_within_the_budget_longest_first(lengths: list[int], budget: int, most: int) -> None:
    sizes = np.array(lengths, np.int64)
    batches = plan_batches(sizes, batch_tokens=budget, max_texts=most)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sizes[batch].sum() <= budget
        assert len(batch) <= most
    in_order = [int(sizes[row]) for batch in batches for row in batch]
    assert in_order == sorted(lengths, reverse=True)


def test_budgets_are_used_up() -> None:
    lengths = np.random.default_rng(0).integers(8, 512, 2000)
    batches = plan_batches(lengths, batch_tokens=8192)
    assert len(batches) <= 1.05 * lengths.sum() / 8192 + 1


@pytest.mark.parametrize(
    ("pooling", "weights"),
    [("cls", [1, 0, 0, 0, 1, 0]), ("mean", [0.25] * 4 + [0.5] * 2), ("last_token", [0, 0, 0, 1, 0, 1])],
)
def test_packed_texts_know_their_tokens(pooling: Pooling, weights: list[float]) -> None:
    batch = pack([text_of(7, 8), text_of()], dropped=1, pooling=pooling)
    assert batch.ids.tolist() == [0, 7, 8, 2, 0, 2]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert batch.owners.tolist() == [0, 0, 0, 0, 1, 1]
    assert batch.keep.tolist() == [False, True, True, True, False, True]
    assert batch.kept.tolist() == [3, 1]
    assert batch.pool.tolist() == weights


def test_a_token_that_is_not_counted_shifts_those_behind_it_in_its_text() -> None:
    ids, lengths = np.array([0, 1, 7, 1, 2, 0, 2, 0, 1, 2]), np.array([5, 2, 3])
    assert token_numbers(ids, lengths, padding=None).tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2]
    assert token_numbers(ids, lengths, padding=1).tolist() == [0, -1, 1, -1, 2, 0, 1, 0, -1, 1]


def test_some_texts_of_a_batch_in_any_order() -> None:
    texts = [text_of(*range(10, 10 + n)) for n in (3, 0, 5, 1)]
    batch = pack(texts, dropped=2, pooling="mean")
    taken = batch.take(np.array([2, 0]))
    assert taken.ids.tolist() == [*texts[2], *texts[0]]
    assert taken.kept.tolist() == [5, 3]
    assert taken.pool.sum() == pytest.approx(2)
    assert len(batch.take(np.zeros(0, np.int64))) == 0


def test_no_texts_at_all() -> None:
    batch = pack([], dropped=1, pooling="cls")
    assert len(batch) == 0
    assert batch.kept.tolist() == []


@pytest.mark.parametrize(("content", "starts"), [(0, [0]), (256, [0]), (257, [0, 257]), (700, [0, 257, 514])])
def test_mcls_puts_a_cls_before_each_256_tokens(content: int, starts: list[int]) -> None:
    text = text_of(*range(10, 10 + content))
    batch = pack([text, text_of(5)], dropped=1, pooling="cls", mcls=True)
    first = batch.take(np.array([0]))
    assert first.pool.nonzero()[0].tolist() == starts
    assert first.ids[starts].tolist() == [CLS] * len(starts)
    assert first.pool.sum() == pytest.approx(1)
    assert first.ids[first.keep].tolist() == text[1:].tolist()
    assert batch.kept.tolist() == [content + 1, 2]
