"""The network: a backbone and the two linear heads of M3, one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from m3rag.encoder.batching import Batch, token_numbers
from m3rag.encoder.checkpoint import HEAD_FILES, Checkpoint
from m3rag.encoder.mini import HEADS
from m3rag.encoder.packed_linear import pack_products
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import Transformer, load_transformer
from m3rag.encoder.weights import damage_named
from m3rag.errors import ModelError


class Representations(NamedTuple):
    """What one forward pass gives for a batch, on its device, before norms and maxima.

    dense `(texts, D)` float32, pooled; lexical `(kept tokens,)` float32 weights >= 0; colbert
    `(kept tokens, c)` float32.
    """

    dense: Tensor
    lexical: Tensor
    colbert: Tensor


class M3Model(nn.Module):
    """Backbone, `sparse_linear` (hidden -> 1) and `colbert_linear` (hidden -> c)."""

    def __init__(self, backbone: Transformer, sparse_linear: nn.Linear, colbert_linear: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.sparse_linear = sparse_linear
        self.colbert_linear = colbert_linear

    @property
    def colbert_dim(self) -> int:
        """Length of a token vector."""
        return self.colbert_linear.out_features

    @property
    def vocab_size(self) -> int:
        """Number of token ids that have a row in the word table."""
        return self.backbone.shape.vocab_size

    def states(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states, `(tokens, hidden)` float32."""
        device = self.colbert_linear.weight.device
        numbers = token_numbers(batch.ids, batch.lengths, padding=self.backbone.shape.padding)
        ids, positions = (to_device(array, device) for array in (batch.ids, numbers))
        states: Tensor = self.backbone(ids, positions, batch.lengths.tolist())
        return states

    def forward(self, batch: Batch) -> Representations:
        """Encode a batch."""
        states = self.states(batch)
        dense = pool(states, batch)
        kept = states if batch.keep.all() else states[to_device(batch.keep.nonzero()[0], states.device)]
        lexical = torch.relu(self.sparse_linear(kept)).squeeze(-1)
        return Representations(dense, lexical, self.colbert_linear(kept))


def pool(states: Tensor, batch: Batch) -> Tensor:
    """One vector a text, the weighted sum of its token states: `(texts, hidden)` float32."""
    used = batch.pool.nonzero()[0]
    at, owners, weights = (to_device(a, states.device) for a in (used, batch.owners[used], batch.pool[used]))
    pooled = torch.zeros((len(batch), states.shape[1]), device=states.device)
    return pooled.index_add_(0, owners, states[at] * weights.unsqueeze(1))


def load_model(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> M3Model:
    """Load a checkpoint for inference.

    Raises:
        ModelError: If a weight or head file is damaged or of the wrong shape.
    """
    backbone = load_transformer(checkpoint, dtype=dtype, device=device)
    sparse, colbert = load_heads(checkpoint, hidden=backbone.shape.hidden)
    model = M3Model(backbone, sparse.to(device), colbert.to(device)).eval().requires_grad_(False)
    pack_products(backbone)
    return model


def load_heads(checkpoint: Checkpoint, *, hidden: int) -> tuple[nn.Linear, nn.Linear]:
    """The two heads of a checkpoint, in float32.

    Raises:
        ModelError: If a head file is damaged or its shape does not fit; the file is named.
    """
    if checkpoint.has_shipped_heads:
        file = checkpoint.folder / HEADS
        with damage_named(file):
            tensors = load_file(file)
            states = [
                {k: tensors[f"{head}.{k}"] for k in ("weight", "bias")} for head in ("sparse_linear", "colbert_linear")
            ]
        files = [file, file]
    else:
        files = [checkpoint.folder / name for name in HEAD_FILES]
        states = []
        for file in files:
            with damage_named(file):
                states.append(torch.load(file, map_location="cpu", weights_only=True))
    heads = []
    for state, file, outputs in zip(states, files, (1, None), strict=True):
        weight, bias = (state.get(name) if isinstance(state, Mapping) else None for name in ("weight", "bias"))
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
        fits = len(shape) == 2 and shape[0] > 0 and shape[1] == hidden and outputs in {None, shape[0]}
        if not (fits and isinstance(bias, Tensor) and tuple(bias.shape) == shape[:1]):
            wanted = f"({outputs or 'any'}, {hidden})"
            raise ModelError(f"{file} does not fit the backbone: its weight is {shape}, must be {wanted}, with a bias")
        head = nn.Linear(hidden, shape[0])
        head.load_state_dict({"weight": state["weight"].float(), "bias": state["bias"].float()})
        heads.append(head)
    return heads[0], heads[1]
