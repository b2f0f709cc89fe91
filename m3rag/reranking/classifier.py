"""A sequence classifier of the BERT, RoBERTa and XLM-R families, over packed pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from m3rag.encoder.batching import token_numbers
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.packed_linear import pack_products
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import MODEL_TYPES, ROBERTA_TYPES, Transformer, load_transformer
from m3rag.encoder.weights import Weights
from m3rag.errors import ModelError
from m3rag.reranking.pairs import Pair

REMEDY = "give a sequence-classification checkpoint with one label, such as BAAI/bge-reranker-v2-m3"

Head = tuple[nn.Linear, nn.Linear]
"""`dense` and `out` of a `PackedClassifier`."""


class Classifier(Protocol):
    """What computes a batch: our own network, or one of transformers.

    Attributes:
        max_length: Most tokens of a pair that it has positions for.
        labels: How many numbers it gives a pair.
        words: How many token ids it has vectors for.
    """

    max_length: int
    labels: int
    words: int

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """One forward pass: `(pairs, labels)` float32."""


class PackedClassifier(nn.Module):
    """The backbone, and the head on the state of the first token: `out(tanh(dense(state)))`.

    Both families have that head; BERT calls its first layer the pooler.
    """

    def __init__(self, backbone: Transformer, dense: nn.Linear, out: nn.Linear, *, types: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.dense = dense
        self.out = out
        self.types = types
        self.max_length = backbone.shape.max_length
        self.labels = out.out_features
        self.words = backbone.shape.vocab_size

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """The logits of some pairs."""
        device = self.out.weight.device
        lengths = np.array([len(pair.ids) for pair in pairs], np.int64)
        starts = np.cumsum(lengths) - lengths
        ids = np.concatenate([pair.ids for pair in pairs])
        positions = token_numbers(ids, lengths, padding=self.backbone.shape.padding)
        if self.types > 1:
            positions += np.concatenate([pair.types for pair in pairs]) * self.backbone.shape.positions
        states = self.backbone(
            to_device(ids, device), to_device(positions, device), lengths.tolist(), to_device(starts, device)
        )
        # In training products may be computed in bfloat16, whose three digits tell few passages apart.
        with torch.autocast(device.type, enabled=False):
            logits: Tensor = self.out(torch.tanh(self.dense(states)))
        return logits


class TypedPositions(nn.Embedding):
    """Positions of tokens of several types: the row of a token of type `t` at position `p` is `t * positions + p`.

    Args:
        positions: `(positions, hidden)` float32.
        types: `(types, hidden)` float32, added to them.
    """

    def __init__(self, positions: Tensor, types: Tensor) -> None:
        super().__init__(positions.shape[0], positions.shape[1], _weight=positions)
        self.types = nn.Parameter(types)

    def forward(self, rows: Tensor) -> Tensor:
        """`(tokens,)` rows to `(tokens, hidden)`."""
        count = self.num_embeddings
        return super().forward(rows % count) + nn.functional.embedding(rows // count, self.types)


def load_classifier(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Classifier:
    """Load a checkpoint for inference, on our own network where it is one of its families.

    Raises:
        ModelError: If it is no sequence classifier of one or two labels, is damaged, or of an
            architecture that cannot be had.
    """
    config = checkpoint.config()
    told = config.get("architectures") or []
    named = [str(name) for name in told] if isinstance(told, list) else [str(told)]
    if named and not any(name.endswith("ForSequenceClassification") for name in named):
        raise ModelError(f"the model {checkpoint.name!r} is a {', '.join(named)}, no reranker: {REMEDY}")
    classifier: Classifier
    if config.get("model_type") in MODEL_TYPES:
        classifier = load_packed(checkpoint, dtype=dtype, device=device)
        pack_products(classifier.backbone)
    else:
        from m3rag.reranking.padded import load_padded  # noqa: PLC0415 - loads the models of transformers

        classifier = load_padded(checkpoint, dtype=dtype, device=device)
    if classifier.labels > 2:
        raise ModelError(
            f"the model {checkpoint.name!r} has {classifier.labels} labels, so none of them is the relevance: {REMEDY}"
        )
    return classifier


def load_packed(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, head: Head | None = None
) -> PackedClassifier:
    """Load a checkpoint on our own network.

    Args:
        checkpoint: Of one of its families.
        dtype: Of the backbone's products.
        device: Where to.
        head: Instead of the checkpoint's own.

    Raises:
        ModelError: If it is of another family, damaged, or lacks the head of a reranker.
    """
    backbone = load_transformer(checkpoint, dtype=dtype, device=device)
    weights = Weights(checkpoint)
    is_roberta = checkpoint.config()["model_type"] in ROBERTA_TYPES
    dense, out = head or _load_head(checkpoint, weights, hidden=backbone.shape.hidden, is_roberta=is_roberta)
    # RoBERTa's tokenizers tell of no types, so their models only ever saw the first.
    types = 1 if is_roberta else backbone.shape.types
    if types > 1:
        tables = (weights[f"embeddings.{name}_embeddings.weight"].float() for name in ("position", "token_type"))
        backbone.positions = TypedPositions(*tables).to(device)
    model = PackedClassifier(backbone, dense.to(device), out.to(device), types=types)
    return model.eval().requires_grad_(False)


def _load_head(checkpoint: Checkpoint, weights: Weights, *, hidden: int, is_roberta: bool) -> Head:
    dense_tensor, dense_name, out_name = (
        (weights.outside, "classifier.dense", "classifier.out_proj")
        if is_roberta
        else (weights.__getitem__, "pooler.dense", "classifier")
    )
    dense = load_linear(checkpoint, dense_tensor, dense_name, inputs=hidden)
    return dense, load_linear(checkpoint, weights.outside, out_name, inputs=dense.out_features)


def load_linear(checkpoint: Checkpoint, tensor: Callable[[str], Tensor], name: str, *, inputs: int) -> nn.Linear:
    """A layer of a head.

    Args:
        checkpoint: What it is of, for errors.
        tensor: Gives a tensor by its name.
        name: Of the layer.
        inputs: Dimensions that it must take.

    Raises:
        ModelError: If it is missing or of another shape.
    """
    try:
        weight, bias = (tensor(f"{name}.{part}").float() for part in ("weight", "bias"))
    except ModelError as error:
        raise ModelError(f"the model {checkpoint.name!r} lacks the head of a reranker ({error}): {REMEDY}") from error
    if weight.ndim != 2 or weight.shape[1] != inputs or bias.shape != weight.shape[:1]:
        raise ModelError(
            f"{name} in {checkpoint.folder} has shapes {tuple(weight.shape)} and {tuple(bias.shape)}, its input has "
            f"{inputs} dimensions: fetch or save the checkpoint again"
        )
    layer = nn.Linear(inputs, len(weight))
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
