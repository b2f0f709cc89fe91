from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.training.batches import draw, plan_epoch
from m3rag.training.data import Example

OPTIONS: dict[str, Any] = {"batch_size": 8, "max_batch_tokens": 2000, "seed": 0, "epoch": 0}


@pytest.fixture
def corpus() -> tuple[list[str], list[int]]:
    rng = np.random.default_rng(0)
    return [str(s) for s in rng.choice(["de", "ja", "fi"], 400)], [int(n) for n in rng.integers(10, 900, 400)]


def test_each_example_is_in_one_batch_of_like_ones(corpus: tuple[list[str], list[int]]) -> None:
    sources, lengths = corpus
    plan = plan_epoch(sources, lengths, **OPTIONS)
    assert sorted(i for batch in plan for i in batch) == list(range(400))
    assert all(len({sources[i] for i in batch}) == 1 for batch in plan)
    assert all(sum(lengths[i] for i in batch) <= 2000 and len(batch) <= 8 for batch in plan)
    mixed = [b for b in plan if max(lengths[i] for i in b) > 2 * max(min(lengths[i] for i in b), 64)]
    # Only what is left of the bins of a source mixes lengths.
    assert len(mixed) <= 3 * 5


def test_all_workers_plan_alike_and_no_two_epochs_are_alike(corpus: tuple[list[str], list[int]]) -> None:
    first, again = (plan_epoch(*corpus, **OPTIONS) for _ in range(2))
    assert first == again
    assert plan_epoch(*corpus, **{**OPTIONS, "epoch": 1}) != first
    assert plan_epoch(*corpus, **{**OPTIONS, "seed": 1}) != first


def test_an_example_beyond_the_budget_is_a_batch_of_its_own() -> None:
    plan = plan_epoch(["a"] * 4, [5000, 10, 10, 10], **OPTIONS)
    assert sorted(map(sorted, plan)) == [[0], [1, 2, 3]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3000)), min_size=3, max_size=40), st.integers(1, 3))
def test_every_worker_gets_an_example(rows: list[tuple[str, int]], least: int) -> None:
    plan = plan_epoch([s for s, _ in rows], [n for _, n in rows], **OPTIONS, least=least)
    assert sorted(i for batch in plan for i in batch) == list(range(len(rows)))
    assert all(len(batch) >= least for batch in plan)


def test_batches_too_short_are_joined_and_no_more_than_that() -> None:
    plan = plan_epoch(["a"] * 9, [5000] * 9, **OPTIONS, least=2)
    assert sorted(map(len, plan)) == [2, 2, 2, 3]
    assert sorted(i for batch in plan for i in batch) == list(range(9))


def test_passages_are_drawn_by_seed_epoch_and_example_alone() -> None:
    examples = [Example(f"q{i}", ("p0", "p1"), tuple(f"n{j}" for j in range(9)), "a") for i in range(20)]
    whole = draw(examples, range(20), negatives=3, seed=0, epoch=2)
    assert [draw(examples, [i], negatives=3, seed=0, epoch=2)[0] for i in range(20)] == whole
    assert {choice.positive for choice in whole} == {0, 1}
    assert all(len(set(choice.negatives)) == 3 for choice in whole)
    assert draw(examples, range(20), negatives=3, seed=0, epoch=3) != whole
    assert draw(examples, [0], negatives=20, seed=0, epoch=0)[0].negatives == tuple(range(9))
    assert draw(examples, [0], negatives=0, seed=0, epoch=0)[0].negatives == ()
