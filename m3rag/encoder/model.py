"""The network: a backbone and the two linear heads of M3, one forward pass."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging

from m3rag.encoder.checkpoint import HEAD_FILES, SHIPPED_HEADS, Checkpoint, Pooling
from m3rag.errors import ModelError


class Representations(NamedTuple):
    """What one forward pass gives for a batch, still padded.

    dense `(B, d)` of unit length; lexical `(B, T)` weights >= 0; colbert `(real tokens, c)` of unit
    length, for the tokens that the pass was told to keep.
    """

    dense: Tensor
    lexical: Tensor
    colbert: Tensor


class M3Model(nn.Module):
    """Backbone, `sparse_linear` (hidden -> 1) and `colbert_linear` (hidden -> c)."""

    def __init__(
        self, backbone: PreTrainedModel, sparse_linear: nn.Linear, colbert_linear: nn.Linear, *, pooling: Pooling
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sparse_linear = sparse_linear
        self.colbert_linear = colbert_linear
        self.pooling = pooling

    def hidden_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The backbone's last hidden states.

        Args:
            ids: `(B, T)` int64 token ids, padded on the right.
            mask: `(B, T)` bool, True on real tokens.

        Returns:
            `(B, T, hidden)` in the backbone's dtype.
        """
        table = cast(nn.Embedding, self.backbone.get_input_embeddings()).weight
        # The word table may be kept in float16 to save memory while the layers compute in float32.
        words = F.embedding(ids, table).to(self.colbert_linear.weight.dtype)
        attention = None if bool(mask.all()) else mask.long()
        states: Tensor = self.backbone(inputs_embeds=words, attention_mask=attention).last_hidden_state
        return states

    def forward(self, ids: Tensor, mask: Tensor, keep: Tensor) -> Representations:
        """Encode a batch.

        Args:
            ids: `(B, T)` int64 token ids, padded on the right.
            mask: `(B, T)` bool, True on real tokens.
            keep: `(B, T)` bool, True on the tokens that get a ColBERT vector.
        """
        states = self.hidden_states(ids, mask)  # (B, T, D)
        dense = F.normalize(pool(states, mask, self.pooling).float(), dim=-1)  # (B, D)
        lexical = torch.relu(self.sparse_linear(states)).squeeze(-1).float()  # (B, T)
        colbert = F.normalize(self.colbert_linear(states[keep]).float(), dim=-1)  # (tokens, C)
        return Representations(dense, lexical, colbert)


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text from its token states: `(B, T, D)` and `(B, T)` to `(B, D)`."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
        return (states * weights).sum(1) / weights.sum(1)
    last = mask.sum(1) - 1  # (B,)
    return states[torch.arange(len(states), device=states.device), last]


def load_model(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> M3Model:
    """Load a checkpoint for inference.

    Raises:
        ModelError: If a weight or head file is damaged or of the wrong shape.
    """
    stored_half = checkpoint.config().get("dtype") == "float16"
    try:
        with _quiet_transformers():
            backbone = AutoModel.from_pretrained(
                checkpoint.folder, dtype=dtype, local_files_only=True, **_unpooled(checkpoint)
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the weights of {checkpoint.name!r} in {checkpoint.folder} do not load: {error}") from error
    if stored_half:
        embedding = backbone.get_input_embeddings()
        embedding.weight = nn.Parameter(embedding.weight.data.half(), requires_grad=False)
    sparse, colbert = load_heads(checkpoint, hidden=int(backbone.config.hidden_size))
    model = M3Model(backbone, sparse.to(dtype), colbert.to(dtype), pooling=checkpoint.recipe.pooling)
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    # stderr belongs to the caller: no progress bar for a load of two seconds, and no report of
    # weights that a checkpoint holds beyond what is used here.
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _unpooled(checkpoint: Checkpoint) -> dict[str, Any]:
    # The pooler of a BERT is never used here; without this its absence is reported as missing keys.
    return {"add_pooling_layer": False} if checkpoint.config()["model_type"] in {"bert", "xlm-roberta"} else {}


def load_heads(checkpoint: Checkpoint, *, hidden: int) -> tuple[nn.Linear, nn.Linear]:
    """The two heads of a checkpoint, in float32.

    Raises:
        ModelError: If a head file is damaged or its shape does not fit; the file is named.
    """
    if checkpoint.has_shipped_heads:
        file = checkpoint.folder / SHIPPED_HEADS
        tensors = load_file(file)
        states = [
            {k: tensors[f"{head}.{k}"] for k in ("weight", "bias")} for head in ("sparse_linear", "colbert_linear")
        ]
        files = [file, file]
    else:
        files = [checkpoint.folder / name for name in HEAD_FILES]
        states = [_load_head(checkpoint, name) for name in HEAD_FILES]
    heads = []
    for state, file, outputs in zip(states, files, (1, None), strict=True):
        shape = tuple(state["weight"].shape) if {"weight", "bias"} <= state.keys() else ()
        if len(shape) != 2 or shape[1] != hidden or (outputs is not None and shape[0] != outputs):
            wanted = f"({outputs or 'any'}, {hidden})"
            raise ModelError(f"{file} does not fit the backbone: its weight is {shape}, must be {wanted}, with a bias")
        head = nn.Linear(hidden, shape[0])
        head.load_state_dict({"weight": state["weight"].float(), "bias": state["bias"].float()})
        heads.append(head)
    return heads[0], heads[1]


def _load_head(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path = checkpoint.folder / name
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged or not a head of M3: {error}") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for anything that weights_only refuses
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelError(f"{path} is damaged or not a head of M3: fetch it again") from error
    return state
