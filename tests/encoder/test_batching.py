from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3rag.encoder.batching import plan_batches


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4000))
def test_each_text_once_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, np.int64)
    batches = plan_batches(sizes, batch_tokens=budget)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= budget
    longest = [sizes[b].max() for b in batches]
    assert longest == sorted(longest, reverse=True)


def test_mixed_lengths_are_hardly_padded() -> None:
    lengths = np.random.default_rng(0).integers(8, 512, 2000)
    batches = plan_batches(lengths, batch_tokens=8192)
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded / lengths.sum() <= 1.13
