"""Any other sequence classifier of transformers, such as DeBERTa or ModernBERT, over padded pairs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import MODEL_TYPES
from m3rag.encoder.weights import damage_named
from m3rag.errors import ModelError
from m3rag.reranking.pairs import Pair


class PaddedClassifier:
    """A model of transformers behind the protocol `Classifier`."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.max_length = _positions(model)
        self.labels = int(model.config.num_labels)
        self.words = int(model.get_input_embeddings().num_embeddings)

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """The logits of some pairs."""
        rows, longest = len(pairs), max(len(pair.ids) for pair in pairs)
        # What stands in padding is masked; its id need only be one that the model knows.
        ids, types, mask = (np.zeros((rows, longest), np.int64) for _ in range(3))
        ids[:] = self.model.config.pad_token_id or 0
        for row, pair in enumerate(pairs):
            ids[row, : len(pair.ids)], types[row, : len(pair.ids)], mask[row, : len(pair.ids)] = *pair, 1
        given = {"input_ids": ids, "attention_mask": mask}
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = types
        tensors = {name: to_device(array, self.device) for name, array in given.items()}
        logits: Tensor = self.model(**tensors).logits
        return logits.float()


def load_padded(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> PaddedClassifier:
    """Load a checkpoint through transformers.

    Raises:
        ModelError: If transformers has no such architecture, or the weights lack a tensor.
    """
    kind = checkpoint.config().get("model_type")
    supported = f"{', '.join(sorted(MODEL_TYPES))}, or a sequence classifier that transformers brings along"
    with damage_named(checkpoint.folder):
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        except (ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"the model {checkpoint.name!r} is of type {kind!r}, which cannot be loaded "
                f"({type(error).__name__}): a reranker must be of {supported}"
            ) from error
    # transformers would fill these at random, with no more than a warning.
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"the weights in {checkpoint.folder} lack {', '.join(missing)}: fetch the checkpoint again")
    return PaddedClassifier(model.to(device).eval().requires_grad_(False), device)


def _positions(model: Any) -> int:
    """Most tokens of a pair: a table of positions with a padding row starts behind it."""
    limit = int(getattr(model.config, "max_position_embeddings", sys.maxsize))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limit = min(limit, module.num_embeddings - offset)
    return limit
