"""All steps of a run beforehand: which examples each holds, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from m3rag.training.batches import plan_epoch
from m3rag.training.data import Example
from m3rag.training.settings import RunSettings


def plan_run(
    sources: Sequence[str], lengths: Sequence[int], settings: RunSettings, *, least: int
) -> list[tuple[int, list[int]]]:
    """The batches of all epochs.

    Args:
        sources: Of each example.
        lengths: Most tokens of each in a step.
        settings: The run.
        least: Fewest examples of a batch.

    Returns:
        For each step its epoch and its example numbers.
    """
    plan: list[tuple[int, list[int]]] = []
    for epoch in range(settings.epochs):
        batches = plan_epoch(
            sources,
            lengths,
            batch_size=settings.batch_size,
            max_batch_tokens=settings.max_batch_tokens,
            seed=settings.seed,
            epoch=epoch,
            least=least,
        )
        plan += [(epoch, batch) for batch in batches]
    return plan


def most_tokens(example: Example, lengths: Mapping[str, int], *, negatives: int) -> int:
    """Most tokens that the passages of an example may have in a step: one positive, and so many negatives.

    Args:
        example: Whose.
        lengths: Of each passage.
        negatives: Of a question in a step.
    """
    longest = sorted((lengths[text] for text in example.negatives), reverse=True)[:negatives]
    return max(lengths[text] for text in example.positives) + sum(longest)


def rate_share(step: int, steps: int, *, warmup: float) -> float:
    """The learning rate of a step (from 1) as a part of its highest: a line up, a cosine down."""
    rising = warmup * steps
    if step <= rising:
        return step / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps + 1 - rising)))
