"""The backbone (BERT, RoBERTa, XLM-R) over packed texts: every layer sees real tokens only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3rag.encoder.attention import Attention, attention_over
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.device import is_out_of_memory
from m3rag.encoder.weights import WORD_TABLE, Weights
from m3rag.errors import ModelError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
# RoBERTa's positions start behind the padding id, BERT's at 0.
ROBERTA_TYPES = frozenset({"roberta", "xlm-roberta", "camembert"})
MODEL_TYPES = ROBERTA_TYPES | {"bert"}

FEED_FORWARD_ROWS = 2048
"""On a CPU the wide inner layer is computed this many tokens at a time: it stays in the cache, and
8,192 tokens need no more memory than 2,048."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a checkpoint's `config.json` says of its network."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocab_size: int
    positions: int
    first_position: int
    types: int
    eps: float
    activation: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Architecture:
        """Read it.

        Raises:
            ModelError: If the network is not one that this encoder computes, or `config.json` is damaged.
        """
        config: dict[str, Any] = checkpoint.config()

        def refuse(key: str, supported: object) -> ModelError:
            return ModelError(
                f"the model {checkpoint.name!r} has {key} {config.get(key)!r}, which m3rag does not compute: "
                f"its backbone must have one of {supported}"
            )

        if config.get("model_type") not in MODEL_TYPES:
            raise refuse("model_type", ", ".join(sorted(MODEL_TYPES)))
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise refuse("position_embedding_type", "absolute")
        activation = config.get("hidden_act", "gelu")
        if activation not in list(ACTIVATIONS):  # a list of one cannot be looked up
            raise refuse("hidden_act", ", ".join(ACTIVATIONS))
        path = checkpoint.folder / "config.json"
        try:
            shape = cls(
                hidden=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                inner=int(config["intermediate_size"]),
                vocab_size=int(config["vocab_size"]),
                positions=int(config["max_position_embeddings"]),
                first_position=int(config["pad_token_id"]) + 1 if config["model_type"] in ROBERTA_TYPES else 0,
                types=int(config.get("type_vocab_size", 1)),
                eps=float(config.get("layer_norm_eps", 1e-12)),
                activation=activation,
            )
        except KeyError as error:
            raise ModelError(f"{path} lacks {error.args[0]}: fetch it again") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{path} has something else where a number belongs ({error}): fetch it again") from error
        sizes = (shape.hidden, shape.layers, shape.inner, shape.vocab_size, shape.max_length, shape.types)
        if min(sizes) < 1 or shape.first_position < 0 or not 0 <= shape.eps < 1:
            raise ModelError(f"{path} has a number that no network can have ({shape}): fetch it again")
        if shape.heads < 1 or shape.hidden % shape.heads:
            raise ModelError(f"{path} has a hidden_size of {shape.hidden} for {shape.heads} heads: fetch it again")
        return shape

    @property
    def padding(self) -> int | None:
        """The id of the token that positions do not count; None where they count all."""
        return self.first_position - 1 if self.first_position else None

    @property
    def max_length(self) -> int:
        """Most tokens of a text: 8,194 positions of XLM-R hold 8,192."""
        return self.positions - self.first_position


class Layer(nn.Module):
    """Self-attention and feed-forward, each with its residual and norm (post-norm)."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.heads = shape.heads
        self.activation = ACTIVATIONS[shape.activation]
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.out = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.up = nn.Linear(shape.hidden, shape.inner)
        self.down = nn.Linear(shape.inner, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, states: Tensor, attend: Attention, only: Tensor | None = None) -> Tensor:
        """`(tokens, D)` to `(tokens, D)`, or the rows `only`; float32 whatever the products are computed in."""
        tokens, hidden = states.shape
        dtype = self.qkv.weight.dtype
        mixed = attend(self.qkv(states.to(dtype)).view(tokens, 3, self.heads, hidden // self.heads))
        if only is not None:
            mixed, states = mixed[only], states[only]
        states = self.attention_norm(self.out(mixed).float().add_(states))
        rows = FEED_FORWARD_ROWS if states.device.type == "cpu" else max(tokens, 1)
        fed = [self._feed_forward(part, dtype) for part in torch.split(states, rows)]
        return fed[0] if len(fed) == 1 else torch.cat(fed)

    def _feed_forward(self, states: Tensor, dtype: torch.dtype) -> Tensor:
        fed: Tensor = self.norm(self.down(self.activation(self.up(states.to(dtype)))).float().add_(states))
        return fed


class Transformer(nn.Module):
    """Token ids of packed texts to their last hidden states.

    In half precision only the matrix products are: residuals and norms stay in float32. It costs no
    time, and halves the error that the lexical weights show.
    """

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocab_size, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.rows_for: Callable[[int], int] = int
        """How many rows the layers compute for so many tokens; the others are filler."""

    @property
    def dtype(self) -> torch.dtype:
        """What the matrix products are computed in."""
        layer: Layer = self.layers[0]  # type: ignore[assignment]
        return layer.qkv.weight.dtype

    def forward(self, ids: Tensor, positions: Tensor, lengths: list[int], only: Tensor | None = None) -> Tensor:
        """Compute the states.

        Args:
            ids: `(tokens,)` int64, texts one after the other.
            positions: `(tokens,)` int64, each text's from 0, as `token_numbers` gives them.
            lengths: Tokens of each text.
            only: `(rows,)` int64, the tokens whose states are wanted; all if None. The last layer
                computes little for the others.

        Returns:
            `(tokens, hidden)` float32, or `(rows, hidden)`.
        """
        tokens = len(ids)
        if filler := self.rows_for(tokens) - tokens:
            ids, positions = (F.pad(numbers, (0, filler)) for numbers in (ids, positions))
        words = self.words(ids).float()
        states: Tensor = self.norm(words.add_(self.positions(positions + self.shape.first_position)))
        attend = attention_over(
            lengths,
            device=states.device,
            dtype=_dtype_of_products(self.dtype, states.device),
            head_dim=self.shape.hidden // self.shape.heads,
        )
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            states = layer(states, attend, only if i == last else None)
        return states if only is not None else states[:tokens]


def _dtype_of_products(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What products with weights of a dtype give, under autocast too."""
    is_autocast = device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return torch.get_autocast_dtype("cuda") if is_autocast else dtype


def load_transformer(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Transformer:
    """Build the backbone and fill it tensor by tensor.

    A word table stored in float16 stays so: it is most of a small model's memory.

    Raises:
        ModelError: If the architecture is another, or a tensor is missing or mis-shaped.
    """
    shape = Architecture.of(checkpoint)
    weights = Weights(checkpoint)
    with torch.device("meta"):
        model = Transformer(shape)
    # The largest tensor first: while it is copied, nothing else is in memory yet.
    words = weights[WORD_TABLE]
    # Half the memory; of the two, float16 has the digits that a word vector needs.
    is_half = words.dtype == torch.float16 or dtype != torch.float32
    state = {"words.weight": words.to(device=device, dtype=torch.float16 if is_half else torch.float32)}
    del words
    try:
        for name, tensor in _tensors(weights, shape):
            state[name] = tensor.to(device=device, dtype=dtype if _is_product(name) else torch.float32)
        model.load_state_dict(state, assign=True)
    except (RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"the weights in {checkpoint.folder} do not fit their config.json: {error}") from error
    return model


def _is_product(name: str) -> bool:
    return name.startswith("layers.") and "norm" not in name


def _tensors(weights: Weights, shape: Architecture) -> Iterator[tuple[str, Tensor]]:
    positions = weights["embeddings.position_embeddings.weight"]
    # All texts are of type 0, so its row can stand in every position.
    yield "positions.weight", positions.float() + weights["embeddings.token_type_embeddings.weight"][0].float()
    for part in ("weight", "bias"):
        yield f"norm.{part}", weights[f"embeddings.LayerNorm.{part}"]
    for i in range(shape.layers):
        source, target = f"encoder.layer.{i}", f"layers.{i}"
        for part in ("weight", "bias"):
            attention = [weights[f"{source}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            yield f"{target}.qkv.{part}", torch.cat(attention)
            yield f"{target}.out.{part}", weights[f"{source}.attention.output.dense.{part}"]
            yield f"{target}.attention_norm.{part}", weights[f"{source}.attention.output.LayerNorm.{part}"]
            yield f"{target}.up.{part}", weights[f"{source}.intermediate.dense.{part}"]
            yield f"{target}.down.{part}", weights[f"{source}.output.dense.{part}"]
            yield f"{target}.norm.{part}", weights[f"{source}.output.LayerNorm.{part}"]
