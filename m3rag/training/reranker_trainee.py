"""The cross-encoder that is trained: a checkpoint's backbone and one classifier, old or new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from m3rag.encoder.batching import plan_batches
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import ROBERTA_TYPES, Architecture
from m3rag.encoder.weights import Weights
from m3rag.errors import ModelError
from m3rag.reranking.classifier import REMEDY, Head, PackedClassifier, load_linear, load_packed
from m3rag.reranking.pairs import Pair, PairTokenizer, TextPair
from m3rag.training.backbone import free_backbone, trained_parameters
from m3rag.training.recompute import recomputed
from m3rag.training.settings import RerankerSettings

SPREAD = 0.02
"""Of the weights of a new classifier, as in BERT."""

STRETCH = 1000
"""Texts whose tokens are counted at a time."""


@dataclass(frozen=True, eq=False)
class RerankerTrainee:
    """A cross-encoder in training.

    Attributes:
        checkpoint: What it started from.
        tokenizer: The checkpoint's.
        network: In float32, apart from a frozen word table stored in float16.
        device: Where it lies.
        max_length: Most tokens of a pair, specials included.
        query_length: Most tokens of a question.
    """

    checkpoint: Checkpoint
    tokenizer: PairTokenizer
    network: PackedClassifier
    device: torch.device
    max_length: int
    query_length: int

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return trained_parameters(self.network)

    def tokenize(self, pairs: Sequence[TextPair]) -> list[Pair]:
        """The tokens of questions and passages, as `CrossEncoderReranker` sees them; no prefix is put before them."""
        return self.tokenizer.encode(pairs, query_max_length=self.query_length, max_length=self.max_length).pairs

    def logits(self, pairs: Sequence[Pair], *, sub_batch_tokens: int) -> Tensor:
        """How relevant each passage is, `(pairs,)` float32 with gradients, one sub-batch in memory at a time.

        Where one forward pass does not hold all pairs, each part is computed twice: for its numbers, and
        again, with the same dropout, when its gradient is due. The gradients are those of the whole.

        Args:
            pairs: There must be one.
            sub_batch_tokens: Most tokens of a part.
        """
        plan = plan_batches(np.array([len(pair.ids) for pair in pairs]), batch_tokens=sub_batch_tokens)
        parts = []
        for rows in plan:
            batch = [pairs[row] for row in rows]
            again = len(plan) > 1
            found = recomputed(self.network, batch, device=self.device) if again else self.network(batch)
            parts.append(found)
        order = np.argsort(np.concatenate(plan), kind="stable")
        logits: Tensor = torch.cat(parts)[to_device(order, self.device), 0]
        return logits

    def passage_lengths(self, texts: Sequence[str]) -> dict[str, int]:
        """Tokens of each passage, at most those that fit beside an empty question."""
        pairs = ([("", text) for text in texts[i : i + STRETCH]] for i in range(0, len(texts), STRETCH))
        return dict(zip(texts, self._lengths(pairs), strict=True))

    def question_lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each question."""
        pairs = ([(text, "") for text in texts[i : i + STRETCH]] for i in range(0, len(texts), STRETCH))
        return list(self._lengths(pairs))

    def _lengths(self, stretches: Iterator[list[TextPair]]) -> Iterator[int]:
        for pairs in stretches:
            yield from (len(pair.ids) - self.tokenizer.specials for pair in self.tokenize(pairs))


def load_reranker_trainee(base: str, settings: RerankerSettings, *, device: torch.device) -> RerankerTrainee:
    """Load a cross-encoder for training and set what of it may move.

    Args:
        base: `mini`, a hub id or a folder: a sequence classifier of one label, whose head is
            trained on, or an encoder, which is given a new one.
        settings: The run.
        device: Where to.

    Raises:
        ModelError: If the model cannot be had or loaded, or has more than one label.
        ConfigurationError: If a length is out of the model's range.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    checkpoint = Checkpoint.find(base, heads=base == "mini")
    shape = Architecture.of(checkpoint)
    tokenizer = PairTokenizer(checkpoint.folder / "tokenizer.json")
    max_length, query_length = tokenizer.lengths(settings.max_length, settings.query_length, limit=shape.max_length)
    named = checkpoint.config().get("architectures") or []
    has_head = any(name.endswith("ForSequenceClassification") for name in named)
    head = None if has_head else _new_head(checkpoint, hidden=shape.hidden)
    network = load_packed(checkpoint, dtype=torch.float32, device=device, head=head)
    if network.labels != 1:
        raise ModelError(f"the model {base!r} has {network.labels} labels: {REMEDY}")
    free_backbone(network.backbone, settings)
    network.dense.requires_grad_(True)
    network.out.requires_grad_(True)
    return RerankerTrainee(checkpoint, tokenizer, network, device, max_length, query_length)


def _new_head(checkpoint: Checkpoint, *, hidden: int) -> Head:
    """BERT's own pooler if it has one, else a layer that changes nothing but the tanh; and a small random layer."""
    out = nn.Linear(hidden, 1)
    nn.init.normal_(out.weight, std=SPREAD)
    nn.init.zeros_(out.bias)
    if checkpoint.config()["model_type"] not in ROBERTA_TYPES:
        try:
            return load_linear(checkpoint, Weights(checkpoint).__getitem__, "pooler.dense", inputs=hidden), out
        except ModelError:
            pass  # it has none: a file that is damaged fails when the backbone is read
    dense = nn.Linear(hidden, hidden)
    nn.init.eye_(dense.weight)
    nn.init.zeros_(dense.bias)
    return dense, out
