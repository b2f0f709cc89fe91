"""All steps of a run beforehand: which examples each holds, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m3rag.training.batches import plan_epoch
from m3rag.training.data import Example
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import Trainee


def plan_run(
    trainee: Trainee, examples: Sequence[Example], texts: Sequence[str], settings: TrainingSettings, *, workers: int
) -> list[tuple[int, list[int]]]:
    """The batches of all epochs.

    Args:
        trainee: Whose tokens count.
        examples: To learn from.
        texts: All their passages.
        settings: The run.
        workers: Each batch holds an example for every one.

    Returns:
        For each step its epoch and its example numbers.
    """
    lengths = _lengths(trainee, examples, texts, negatives=settings.negatives)
    sources = [example.source for example in examples]
    plan: list[tuple[int, list[int]]] = []
    for epoch in range(settings.epochs):
        batches = plan_epoch(
            sources,
            lengths,
            batch_size=settings.batch_size,
            max_batch_tokens=settings.max_batch_tokens,
            seed=settings.seed,
            epoch=epoch,
            least=workers,
        )
        plan += [(epoch, batch) for batch in batches]
    return plan


def _lengths(trainee: Trainee, examples: Sequence[Example], texts: Sequence[str], *, negatives: int) -> list[int]:
    """Most tokens that each example may have in a step: its question, a positive and its negatives."""
    of_text = dict(zip(texts, trainee.pack(texts, "document").lengths.tolist(), strict=True))
    of_question = trainee.pack([example.query for example in examples], "query").lengths.tolist()
    found = []
    for question, example in zip(of_question, examples, strict=True):
        longest = sorted((of_text[text] for text in example.negatives), reverse=True)[:negatives]
        found.append(question + max(of_text[text] for text in example.positives) + sum(longest))
    return found


def rate_share(step: int, steps: int, *, warmup: float) -> float:
    """The learning rate of a step (from 1) as a part of its highest: a line up, a cosine down."""
    rising = warmup * steps
    if step <= rising:
        return step / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps + 1 - rising)))
