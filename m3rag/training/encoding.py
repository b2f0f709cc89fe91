"""Where a step's representations come from: the network in sub-batches, or the heads on kept token states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from m3rag.encoder.batching import plan_batches
from m3rag.encoder.encoder import BATCH_TOKENS
from m3rag.encoder.inputs import Role
from m3rag.encoder.model import pool
from m3rag.encoder.transfer import to_device
from m3rag.training.precision import autocast
from m3rag.training.recompute import recomputed
from m3rag.training.representation import Texts, token_rows, unit
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import Trainee, start_heads

Prepared = Callable[[int, int], None]
"""Called with the number of texts done and of all."""

HEAD_SAMPLE = 200_000
"""Token states that new heads are started from."""

SAMPLED_TEXTS = 1000
"""Texts whose token states new heads are started from, where the backbone is not run over all."""


class Encoding(Protocol):
    """What gives the representations of some questions and passages, with gradients."""

    def queries(self, rows: Sequence[int]) -> Texts:
        """Of questions by number."""

    def passages(self, rows: Sequence[int]) -> Texts:
        """Of passages by number."""


def encode(trainee: Trainee, texts: Sequence[str], role: Role, *, sub_batch_tokens: int) -> Texts:
    """Representations of texts, with gradients, one sub-batch in memory at a time.

    Where one forward pass does not hold all texts, each part is computed twice: for its numbers, and
    again, with the same dropout, when its gradient is due. The gradients are those of the whole.

    Args:
        trainee: The model.
        texts: What to encode; there must be one.
        role: Which prefix and length.
        sub_batch_tokens: Most tokens of a part.
    """
    packed = trainee.pack(texts, role)
    plan = plan_batches(packed.lengths, batch_tokens=sub_batch_tokens)
    parts = []
    for rows in plan:
        batch = packed.take(rows)
        again = len(plan) > 1 and torch.is_grad_enabled()
        found = recomputed(trainee.represent, batch, device=trainee.device) if again else trainee.represent(batch)
        parts.append(found)
    order = np.argsort(np.concatenate(plan), kind="stable")
    return Texts.concatenate(parts).take(to_device(order, trainee.device))


@dataclass(frozen=True, eq=False)
class LiveEncoding:
    """Every step runs the network."""

    trainee: Trainee
    questions: Sequence[str]
    texts: Sequence[str]
    sub_batch_tokens: int

    def queries(self, rows: Sequence[int]) -> Texts:
        """Of questions by number."""
        return self._encode([self.questions[row] for row in rows], "query")

    def passages(self, rows: Sequence[int]) -> Texts:
        """Of passages by number."""
        return self._encode([self.texts[row] for row in rows], "document")

    def _encode(self, texts: list[str], role: Role) -> Texts:
        return encode(self.trainee, texts, role, sub_batch_tokens=self.sub_batch_tokens)


@dataclass(frozen=True, eq=False)
class TokenStates:
    """What a frozen backbone gives for many texts, packed, specials and prefix left out.

    Attributes:
        states: `(tokens, hidden)` float16.
        ids: `(tokens,)` int64 token ids.
        lengths: `(texts,)` int64.
        dense: `(texts, hidden)` float32 of unit length.
    """

    states: Tensor
    ids: Tensor
    lengths: Tensor
    dense: Tensor


@torch.no_grad()
def token_states(
    trainee: Trainee,
    texts: Sequence[str],
    role: Role,
    *,
    batch_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> TokenStates:
    """Run the backbone once over all texts; they are kept in main memory."""
    packed = trainee.pack(texts, role)
    kept = packed.kept
    ends = np.cumsum(kept)
    hidden = trainee.network.backbone.shape.hidden
    states = torch.empty((int(kept.sum()), hidden), dtype=torch.float16)
    dense = torch.empty((len(packed), hidden))
    for rows in plan_batches(packed.lengths, batch_tokens=batch_tokens):
        batch = packed.take(rows)
        found = trainee.network.states(batch)
        dense[rows] = unit(pool(found, batch)).cpu()
        of_texts = found[to_device(batch.keep.nonzero()[0], found.device)].half().cpu()
        for row, of_text in zip(rows, torch.split(of_texts, batch.kept.tolist()), strict=True):
            states[ends[row] - kept[row] : ends[row]] = of_text
        if progress is not None:
            progress(len(rows))
    return TokenStates(states, torch.from_numpy(packed.ids[packed.keep]), torch.from_numpy(kept), dense)


@dataclass(frozen=True, eq=False)
class FrozenEncoding:
    """Every step runs the heads alone, on token states computed beforehand."""

    trainee: Trainee
    of_questions: TokenStates
    of_texts: TokenStates

    def queries(self, rows: Sequence[int]) -> Texts:
        """Of questions by number."""
        return self._encode(self.of_questions, rows)

    def passages(self, rows: Sequence[int]) -> Texts:
        """Of passages by number."""
        return self._encode(self.of_texts, rows)

    def _encode(self, kept: TokenStates, rows: Sequence[int]) -> Texts:
        texts = torch.tensor(rows, dtype=torch.int64)
        at = token_rows(kept.lengths, texts)
        device = self.trainee.device
        states = kept.states[at].to(device).float()
        return self.trainee.heads_on(
            states, kept.ids[at].to(device), kept.lengths[texts].to(device), dense=kept.dense[texts].to(device)
        )


def encoding_for(
    trainee: Trainee,
    questions: Sequence[str],
    texts: Sequence[str],
    settings: TrainingSettings,
    *,
    progress: Prepared | None = None,
) -> Encoding:
    """What a run takes its representations from; new heads are given their start.

    Args:
        trainee: The model.
        questions: By number.
        texts: Passages by number.
        settings: The run.
        progress: Told of the texts that a frozen backbone is run over.
    """
    total, done = len(texts) + len(questions), 0
    at_once = BATCH_TOKENS.get(trainee.device.type, BATCH_TOKENS["cpu"])  # without gradients, as `M3Encoder` does

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    def states_of(part: Sequence[str], role: Role) -> TokenStates:
        with autocast(settings.precision, trainee.device):
            return token_states(trainee, part, role, batch_tokens=at_once, progress=count)

    if settings.method == "heads":
        of_texts, of_questions = states_of(texts, "document"), states_of(questions, "query")
        if settings.colbert_dim is not None:
            start_heads(trainee.network, _sample(of_texts.states, seed=settings.seed))
        return FrozenEncoding(trainee, of_questions, of_texts)
    if settings.colbert_dim is not None:
        sample = token_states(trainee, texts[:SAMPLED_TEXTS], "document", batch_tokens=at_once)
        start_heads(trainee.network, _sample(sample.states, seed=settings.seed))
    return LiveEncoding(trainee, questions, texts, settings.sub_batch_tokens)


def _sample(states: Tensor, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return states[torch.randperm(len(states), generator=generator)[:HEAD_SAMPLE]]
