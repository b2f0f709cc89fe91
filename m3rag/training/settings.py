"""The settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from m3rag.errors import ConfigurationError
from m3rag.training.loss import LossName, leg_loss

Method = Literal["full", "lora", "heads"]
Precision = Literal["auto", "float32", "bfloat16"]

SEEDS = 1 << 64
"""How many torch knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What every kind of training has settings for.

    Attributes:
        method: What is trained: `full`, all weights; `lora`, deltas of low rank on the backbone's matrices,
            and the heads; `heads`, the heads alone.
        epochs: Passes over the examples; >= 1.
        batch_size: Most questions of a step.
        max_batch_tokens: Most tokens of a step, so that long passages come in smaller batches.
        negatives: Hard negatives of a question in a step, drawn anew each epoch.
        per_source: At most so many examples of each file, the same number from each language, say.
        held_out: Questions of each file that are kept out of training and measured; 0 for none.
        learning_rate: At its highest, > 0; see `LEARNING_RATES`.
        warmup: The part of the steps in which the rate rises, [0, 1); then it falls as a cosine.
        weight_decay: Of AdamW; >= 0.
        max_grad_norm: Longer gradients are cut to it; > 0.
        teacher: Also learn from `pos_scores` and `neg_scores`, which the data must have.
        lora_rank: Of the deltas; >= 1.
        lora_layers: Deltas on the last so many layers only, whose steps take less time; on all by default.
        dropout: On the backbone's states in training, [0, 1).
        sub_batch_tokens: Most tokens of a forward pass; a step of more is computed in parts, each again
            for its gradient, which costs a third more time and changes no number where there is no dropout.
        query_length: Most tokens of a question.
        precision: `bfloat16` multiplies matrices in bfloat16 (the weights stay float32); `auto` does so
            on a GPU that can.
        seed: Of the draw, the order, new heads and dropout; below 2^64.
        save_every: Steps between two saved states.
        evaluate_every: Steps between two measurements of the held-out questions; 0 for first and last only.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    LEARNING_RATES: ClassVar[Mapping[Method, float]] = {}
    """What each method takes by default: the fewer weights move, the further they may."""

    LEAST: ClassVar[Mapping[str, int]] = {
        "epochs": 1, "batch_size": 1, "max_batch_tokens": 1, "negatives": 0, "held_out": 0, "lora_rank": 1,
        "sub_batch_tokens": 1, "seed": 0, "save_every": 1, "evaluate_every": 0,
        "per_source": 1, "query_length": 1, "lora_layers": 1,
    }  # fmt: skip
    """The lowest value of each whole number."""

    ABOVE_ZERO: ClassVar[tuple[str, ...]] = ("max_grad_norm", "learning_rate")

    method: Method = "full"
    epochs: int = 1
    batch_size: int = 48
    max_batch_tokens: int = 65_536
    negatives: int = 2
    per_source: int | None = None
    held_out: int = 0
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    teacher: bool = False
    lora_rank: int = 8
    lora_layers: int | None = None
    dropout: float = 0.0
    sub_batch_tokens: int = 8192
    query_length: int | None = None
    precision: Precision = "auto"
    seed: int = 0
    save_every: int = 200
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, allowed in (("method", tuple(self.LEARNING_RATES)), ("precision", get_args(Precision))):
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(allowed)}")
        for name, low in self.LEAST.items():
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= low):
                raise ConfigurationError(f"{name} is {value!r}, must be at least {low}, and a whole number")
        for name in self.ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigurationError(f"{name} is {value}, must be above 0, and finite")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigurationError(f"weight_decay is {self.weight_decay}, must be at least 0, and finite")
        if self.seed >= SEEDS:
            raise ConfigurationError(f"seed is {self.seed}, must be below 2^64")
        if self.evaluate_every and not self.held_out:
            raise ConfigurationError(
                "evaluate_every has no part where nothing is held out: leave it out, or set held_out"
            )
        if self.lora_layers is not None and self.method != "lora":
            raise ConfigurationError(f"lora_layers has no part in the method {self.method}: leave it out")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, must be at least 0 and below 1")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings(RunSettings):
    """How a model is trained; `RunSettings` has the rest.

    `heads` trains both heads on the frozen backbone, which is run once over every text; it looks at the
    first so many negatives only.

    Attributes:
        batch_size: At least 2, since the others' passages are negatives too.
        colbert_dim: Start both heads anew, with token vectors of so many dimensions; the base's by default.
        temperature: The scores are divided by it; > 0.
        loss: Of each leg: `infonce`, `mnr` (both directions; of several workers each looks back from its own
            questions alone) or `triplet`.
        distill: Self-knowledge distillation, each leg learns from the sum of the three.
        query_length: Specials included; the model's by default.
        passage_length: Most tokens of a passage; the model's by default.
        merge: How far from the base's backbone to the trained one the saved one lies, in (0, 1]. A half
            keeps more of what the base could do elsewhere (LM-Cocktail, arXiv 2311.13534). What is measured
            in training is the model before merging.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    LEARNING_RATES: ClassVar[Mapping[Method, float]] = {"full": 1e-5, "lora": 1e-4, "heads": 1e-3}
    LEAST: ClassVar[Mapping[str, int]] = {
        **RunSettings.LEAST, "batch_size": 2, "colbert_dim": 1, "query_length": 3, "passage_length": 3,
    }  # fmt: skip
    ABOVE_ZERO: ClassVar[tuple[str, ...]] = ("temperature", *RunSettings.ABOVE_ZERO)

    colbert_dim: int | None = None
    temperature: float = 0.02
    loss: LossName = "infonce"
    distill: bool = True
    passage_length: int | None = None
    merge: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        RunSettings.__post_init__(self)
        leg_loss(self.loss)
        if not 0 < self.merge <= 1:
            raise ConfigurationError(f"merge is {self.merge}, must be above 0 and at most 1")
        for name, is_set in (("merge", self.merge < 1), ("dropout", self.dropout > 0)):
            if is_set and self.method == "heads":
                raise ConfigurationError(
                    f"{name} has no part in the method heads, which moves no backbone: leave it out"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSettings(RunSettings):
    """How a cross-encoder is trained; `RunSettings` has the rest.

    Attributes:
        method: `full` or `lora`; the classifier learns with both.
        negatives: At least 1: a question learns from them alone, not from the others' passages.
        max_length: Most tokens of a question and a passage together, specials included; by default 512, or
            the model's limit where that is lower.
        query_length: Without specials; by default three quarters of `max_length`.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    LEARNING_RATES: ClassVar[Mapping[Method, float]] = {"full": 2e-5, "lora": 2e-4}
    LEAST: ClassVar[Mapping[str, int]] = {**RunSettings.LEAST, "negatives": 1, "max_length": 1}

    batch_size: int = 16
    negatives: int = 7
    max_length: int | None = None
