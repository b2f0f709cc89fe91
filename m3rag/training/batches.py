"""Which examples make a step: of one source, of like length, the same on every worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.training.data import Example


@dataclass(frozen=True, slots=True)
class Draw:
    """One example of a step: its row, and which of its passages are shown."""

    example: int
    positive: int
    negatives: tuple[int, ...]


def plan_epoch(
    sources: Sequence[str],
    lengths: Sequence[int],
    *,
    batch_size: int,
    max_batch_tokens: int,
    seed: int,
    epoch: int,
    least: int = 1,
) -> list[list[int]]:
    """Group examples into the batches of one epoch.

    A batch holds examples of one source whose longest texts are of one length bin (up to 64 tokens, 128,
    256, ...). What is left of the bins of a source is put together, and so is what is then left of the
    sources. The order is random. All is a function of the arguments, so that every worker plans alike.

    Args:
        sources: Of each example.
        lengths: Tokens of each example, all its texts together.
        batch_size: Most examples of a batch.
        max_batch_tokens: Most tokens of a batch; an example of more is a batch of its own.
        seed: Of the run.
        epoch: From 0; each is shuffled anew.
        least: Fewest examples of a batch, where there are as many; those too short are joined, whatever their tokens.

    Returns:
        Example numbers; each of them once.
    """
    rng = np.random.default_rng([seed, epoch])
    bins: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, (source, length) in enumerate(zip(sources, lengths, strict=True)):
        bins[source, max(int(length - 1).bit_length(), 6)].append(i)
    batches: list[list[int]] = []
    by_source: dict[str, list[int]] = defaultdict(list)
    for (source, _), members in sorted(bins.items()):
        cut = _cut(rng.permutation(members).tolist(), lengths, batch_size, max_batch_tokens)
        # Only the last of a bin can be short for want of examples.
        if len(cut[-1]) < batch_size:
            by_source[source] += cut.pop()
        batches += cut
    rest: list[int] = []
    for _, members in sorted(by_source.items()):
        cut = _cut(members, lengths, batch_size, max_batch_tokens)
        if len(cut[-1]) < least:
            rest += cut.pop()
        batches += cut
    if rest:
        batches += _cut(rest, lengths, batch_size, max_batch_tokens)
    return _without_short([batches[i] for i in rng.permutation(len(batches))], least)


def _cut(members: Sequence[int], lengths: Sequence[int], batch_size: int, max_tokens: int) -> list[list[int]]:
    cut: list[list[int]] = []
    tokens = 0
    for i in members:
        if not cut or len(cut[-1]) == batch_size or tokens + lengths[i] > max_tokens:
            cut.append([])
            tokens = 0
        cut[-1].append(i)
        tokens += lengths[i]
    return cut


def _without_short(batches: list[list[int]], least: int) -> list[list[int]]:
    """Batches too short are joined with the one behind, the last with the one before."""
    joined: list[list[int]] = []
    for batch in batches:
        if joined and len(joined[-1]) < least:
            joined[-1] = joined[-1] + batch
        else:
            joined.append(batch)
    if len(joined) > 1 and len(joined[-1]) < least:
        last = joined.pop()
        joined[-1] = joined[-1] + last
    return joined


def draw(examples: Sequence[Example], batch: Sequence[int], *, negatives: int, seed: int, epoch: int) -> list[Draw]:
    """Choose a positive and up to `negatives` negatives of each example of a batch.

    A function of its arguments alone: nothing of it has to be remembered to go on after a kill.
    """
    drawn = []
    for i in batch:
        rng = np.random.default_rng([seed, epoch, i])
        example = examples[i]
        chosen = rng.permutation(len(example.negatives))[:negatives]
        drawn.append(Draw(i, int(rng.integers(len(example.positives))), tuple(sorted(map(int, chosen)))))
    return drawn
