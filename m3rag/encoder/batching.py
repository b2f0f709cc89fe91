"""Which texts share a forward pass: batches of like length under a token budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def plan_batches(lengths: npt.NDArray[np.integer], *, batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Group texts into batches whose padded size stays within a budget.

    Texts are sorted by length, longest first, so that rows of a batch are of like length (little
    padding) and a batch that will not fit in memory is met at once. A text longer than the budget
    is a batch of its own.

    Args:
        lengths: `(n,)` tokens of each text.
        batch_tokens: Most padded tokens of a batch: rows times its longest row.

    Returns:
        Index arrays that together hold each of `0..n-1` once. Equal lengths keep their order.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        rows = max(batch_tokens // longest, 1)
        batches.append(order[start : start + rows])
        start += rows
    return batches
