"""The model that is trained: a checkpoint's network, with what of it may move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from m3rag.encoder.batching import Batch, pack
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.inputs import Role
from m3rag.encoder.model import M3Model, load_heads, pool
from m3rag.encoder.tokenizer import SPECIALS, Tokenizer
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import load_transformer
from m3rag.errors import ConfigurationError
from m3rag.training.backbone import free_backbone, trained_parameters
from m3rag.training.representation import Texts, unit
from m3rag.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Trainee:
    """A network in training, and how its checkpoint wants texts to be put.

    Attributes:
        checkpoint: What it started from.
        tokenizer: The checkpoint's.
        network: In float32, apart from a frozen word table stored in float16.
        device: Where it lies.
        lengths: Most tokens of a question and of a passage, specials included.
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    network: M3Model
    device: torch.device
    lengths: dict[Role, int]

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return trained_parameters(self.network)

    def pack(self, texts: Sequence[str], role: Role) -> Batch:
        """The tokens that the network sees of some texts, as `M3Encoder` gives it."""
        prefix = self.prefix(role)
        ids, _ = self.tokenizer.encode(texts, prefix=prefix, max_length=self.lengths[role])
        dropped = 1 + self.tokenizer.prefix_length(prefix)
        return pack(ids, dropped=dropped, pooling=self.checkpoint.recipe.pooling)

    def prefix(self, role: Role) -> str:
        """What the checkpoint wants before a text."""
        recipe = self.checkpoint.recipe
        return recipe.query_prefix if role == "query" else recipe.document_prefix

    def represent(self, batch: Batch) -> Texts:
        """One forward pass, whose numbers are those of `M3Encoder`."""
        states = self.network.states(batch)
        kept = states[to_device(batch.keep.nonzero()[0], states.device)]
        ids = to_device(batch.ids[batch.keep], states.device)
        return self.heads_on(kept, ids, to_device(batch.kept, states.device), dense=unit(pool(states, batch)))

    def heads_on(self, states: Tensor, ids: Tensor, lengths: Tensor, *, dense: Tensor) -> Texts:
        """What the heads make of token states: `(tokens, hidden)`, specials and prefix left out."""
        unused = torch.as_tensor(self.tokenizer.unused_ids, device=states.device)
        weights = torch.relu(self.network.sparse_linear(states)).squeeze(-1).float()
        return Texts(
            dense=dense,
            colbert=unit(self.network.colbert_linear(states)),
            lexical=weights.masked_fill(torch.isin(ids, unused), 0.0),
            ids=ids,
            lengths=lengths,
        )


def load_trainee(base: str, settings: TrainingSettings, *, device: torch.device) -> Trainee:
    """Load a model for training and set what of it may move.

    New heads are given their shape here and their start by `start_heads`.

    Args:
        base: As for `M3Encoder`; with `colbert_dim` a backbone without heads will do.
        settings: The run.
        device: Where to.

    Raises:
        ModelError: If the model cannot be had or loaded.
        ConfigurationError: If a length is more than the model takes, or the ColBERT head wider than the model.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    checkpoint = Checkpoint.find(base, heads=settings.colbert_dim is None or base == "mini")
    backbone = load_transformer(checkpoint, dtype=torch.float32, device=device)
    hidden, limit = backbone.shape.hidden, backbone.shape.max_length
    if settings.colbert_dim is None:
        sparse, colbert = load_heads(checkpoint, hidden=hidden)
    elif settings.colbert_dim > hidden:
        raise ConfigurationError(f"colbert_dim is {settings.colbert_dim}, must be at most the model's width, {hidden}")
    else:
        sparse, colbert = nn.Linear(hidden, 1), nn.Linear(hidden, settings.colbert_dim)
    network = M3Model(backbone, sparse.to(device), colbert.to(device)).requires_grad_(False)
    free_backbone(backbone, settings)
    sparse.requires_grad_(True)
    colbert.requires_grad_(True)
    known = min(checkpoint.recipe.max_length or limit, limit)
    lengths: dict[Role, int] = {"query": settings.query_length or known, "document": settings.passage_length or known}
    tokenizer = Tokenizer(checkpoint.folder / "tokenizer.json")
    trainee = Trainee(checkpoint, tokenizer, network, device, lengths)
    for role, length in lengths.items():
        # A text of which nothing is left but its prefix has no token to score.
        least = SPECIALS + tokenizer.prefix_length(trainee.prefix(role)) + 1
        if not least <= length <= limit:
            raise ConfigurationError(
                f"the {role}'s length {length} is out of range: choose {least} to {limit}, prefix and specials included"
            )
    return trainee


def start_heads(network: M3Model, states: Tensor) -> None:
    """Start new heads: ColBERT as the principal directions of token states, all words of the same weight.

    Args:
        network: Whose heads are set.
        states: `(tokens, hidden)`, a sample.
    """
    colbert, sparse = network.colbert_linear, network.sparse_linear
    width = colbert.out_features
    sample = states.float()
    mean = sample.mean(0)
    _, _, directions = torch.linalg.svd((sample - mean).T @ (sample - mean))
    with torch.no_grad():
        colbert.weight.copy_(directions[:width])
        colbert.bias.copy_(-directions[:width] @ mean)
        # A relu that starts at 0 would stay there.
        nn.init.zeros_(sparse.weight)
        nn.init.constant_(sparse.bias, 0.1)
