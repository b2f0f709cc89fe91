"""The M3 network as one ONNX graph over packed texts.

Linear layers see real tokens only. Attention alone needs texts side by side: it is computed on a
padded view that is gathered from the packed rows and gathered back.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.model import load_heads
from m3rag.encoder.onnx.builder import MICROSOFT, PADDING_KEY, GraphBuilder
from m3rag.encoder.transformer import Architecture
from m3rag.encoder.weights import WORD_TABLE, Weights
from m3rag.errors import ModelError

Array = npt.NDArray[Any]

PADDING_LOGIT = -1e30
"""Added to the attention on a padded place: its weight is then exactly 0."""


class Linear(Protocol):
    """How the layers multiply: in float32, or in int8."""

    def feed(self, graph: GraphBuilder, states: str, *, site: str) -> str:
        """Make states ready to be multiplied, once for all products of a site.

        Args:
            graph: Gets the nodes.
            states: Name of `(tokens, in)` float32.
            site: A layer's name inside the network, such as `layers.0.qkv`.

        Returns:
            What to hand to `multiply`.
        """

    def multiply(self, graph: GraphBuilder, fed: str, weight: Array, bias: Array, *, name: str) -> str:
        """`states @ weight + bias` for `(in, out)` float32 weights: the name of `(tokens, out)` float32."""


class FloatLinear:
    """Products in float32."""

    def feed(self, graph: GraphBuilder, states: str, *, site: str) -> str:
        """The states as they are."""
        return states

    def multiply(self, graph: GraphBuilder, fed: str, weight: Array, bias: Array, *, name: str) -> str:
        """One matrix product."""
        parts = graph.constant(f"{name}.weight", weight), graph.constant(f"{name}.bias", bias)
        return graph.node("Gemm", fed, *parts, name=name)


class M3Graph:
    """Builds the network of a checkpoint.

    Args:
        checkpoint: Whose weights.
        graph: Gets inputs, nodes and outputs.
        linear: How the backbone's layers multiply; the heads always do in float32.

    Raises:
        ModelError: If the architecture is another, or a tensor is missing or mis-shaped.
    """

    def __init__(self, checkpoint: Checkpoint, graph: GraphBuilder, linear: Linear) -> None:
        self.shape = Architecture.of(checkpoint)
        self.weights = Weights(checkpoint)
        self.sparse, self.colbert = load_heads(checkpoint, hidden=self.shape.hidden)
        self.graph = graph
        self.linear = linear

    def build(self) -> None:
        """Add everything; `session.inputs_of` makes the inputs of a batch."""
        if self.shape.padding is not None:
            self.graph.note(PADDING_KEY, str(self.shape.padding))
        self._inputs()
        states = self._embed()
        for i in range(self.shape.layers):
            states = self._layer(i, states)
        self._pool(states)
        self._heads(states)

    def _inputs(self) -> None:
        for name, axes in (
            ("ids", ["tokens"]),  # packed, as in `Batch`
            ("positions", ["tokens"]),  # each text's from 0, as `token_numbers` gives them
            ("slots", ["texts", "longest"]),  # which packed token stands there; `tokens` where none does
            ("places", ["tokens"]),  # where in the flat slots a token stands
            ("kept", ["kept"]),  # the tokens with a ColBERT vector
            ("pooled", ["texts", "most_pooled"]),  # the tokens of the dense vector
        ):
            self.graph.input(name, np.int64, axes)
        self.graph.input("pool_weights", np.float32, ["texts", 1, "most_pooled"])
        # Only the keys have a row for padded slots, behind the last token's.
        last = self.graph.node("Sub", self.graph.node("Size", "ids", name="tokens"), self._int(1), name="last_token")
        self.graph.node("Min", "slots", last, name="real_slots")

    def _embed(self) -> str:
        graph, shape = self.graph, self.shape
        words = self._tensor(WORD_TABLE, shape.vocab_size, shape.hidden)
        half = words.dtype == torch.float16
        looked_up = graph.node(
            "Gather", graph.constant("words", words.numpy() if half else _array(words)), "ids", name="words_of_ids"
        )
        if half:
            looked_up = graph.node("Cast", looked_up, name="words_of_ids.float32", to=1)
        # All texts are of type 0, so its row can stand in every position.
        table = _array(self._tensor("embeddings.position_embeddings.weight", shape.positions, shape.hidden))
        types = _array(self._tensor("embeddings.token_type_embeddings.weight", shape.types, shape.hidden))
        rows = graph.node("Add", "positions", self._int(shape.first_position), name="position_rows")
        added = graph.node("Gather", graph.constant("position_table", table + types[0]), rows, name="position_states")
        return self._add_and_norm(looked_up, added, "embeddings.LayerNorm")

    def _layer(self, i: int, states: str) -> str:
        """Self-attention and feed-forward, each with its residual and norm (post-norm)."""
        source, target, shape = f"encoder.layer.{i}", f"layers.{i}", self.shape
        mixed = self._attention(i, states)
        out = self._linear(
            mixed, self._dense(f"{source}.attention.output.dense", shape.hidden, shape.hidden), f"{target}.out"
        )
        states = self._add_and_norm(out, states, f"{source}.attention.output.LayerNorm")
        up = self._linear(
            states, self._dense(f"{source}.intermediate.dense", shape.hidden, shape.inner), f"{target}.up"
        )
        down = self._dense(f"{source}.output.dense", shape.inner, shape.hidden)
        fed_forward = self._linear(self._activate(up), down, f"{target}.down")
        return self._add_and_norm(fed_forward, states, f"{source}.output.LayerNorm")

    def _attention(self, i: int, states: str) -> str:
        """Attention inside each text: `(tokens, D)` to `(tokens, D)`.

        A padded key is kept out by its own dimension instead of by a mask: every query has a 1
        there, a real key a 0, a padded one `PADDING_LOGIT`. The operator's path that never holds
        all logits takes no mask.
        """
        graph, shape = self.graph, self.shape
        site, head_dim = f"layers.{i}.qkv", shape.hidden // shape.heads
        fed = self.linear.feed(graph, states, site=site)
        rows = {}
        for part in ("query", "key", "value"):
            weight, bias = self._dense(f"encoder.layer.{i}.attention.self.{part}", shape.hidden, shape.hidden)
            if part != "value":
                weight = _with_dimension(weight, shape.heads, 0)
                bias = _with_dimension(bias, shape.heads, 1 if part == "query" else 0)
            rows[part] = self.linear.multiply(graph, fed, weight, bias, name=f"layers.{i}.{part}")
        padded_key = _with_dimension(np.zeros((1, shape.hidden), np.float32), shape.heads, PADDING_LOGIT)
        rows["key"] = graph.node(
            "Concat", rows["key"], graph.constant("padded_key", padded_key), name=f"layers.{i}.keys", axis=0
        )
        views = [
            graph.node("Gather", rows[part], "slots" if part == "key" else "real_slots", name=f"layers.{i}.{part}.view")
            for part in ("query", "key", "value")
        ]  # (texts, longest, heads * head_dim)
        mixed = graph.node(
            "MultiHeadAttention",
            *views,
            name=f"layers.{i}.attention",
            domain=MICROSOFT,
            num_heads=shape.heads,
            scale=head_dim**-0.5,
        )
        flat = graph.node("Reshape", mixed, self._ints("flat", [-1, shape.hidden]), name=f"layers.{i}.attention.flat")
        return graph.node("Gather", flat, "places", name=f"layers.{i}.mixed")

    def _activate(self, states: str) -> str:
        if self.shape.activation == "relu":
            return self.graph.node("Relu", states, name=f"{states}.active")
        kind = "none" if self.shape.activation == "gelu" else "tanh"
        return self.graph.node("Gelu", states, name=f"{states}.active", approximate=kind)

    def _pool(self, states: str) -> None:
        graph = self.graph
        pooled = graph.node("Gather", states, "pooled", name="pooled_states")  # (texts, most_pooled, D)
        summed = graph.node("MatMul", "pool_weights", pooled, name="summed")  # (texts, 1, D)
        graph.node("Squeeze", summed, self._ints("axis_1", [1]), name="dense")
        graph.output("dense", ["texts", self.shape.hidden])

    def _heads(self, states: str) -> None:
        graph = self.graph
        kept = graph.node("Gather", states, "kept", name="kept_states")
        for name, head in (("colbert", self.colbert), ("sparse", self.sparse)):
            weight = graph.constant(f"{name}_linear.weight", _array(head.weight).T)
            graph.node("Gemm", kept, weight, graph.constant(f"{name}_linear.bias", _array(head.bias)), name=name)
        graph.node("Squeeze", graph.node("Relu", "sparse", name="weights"), self._ints("axis_1", [1]), name="lexical")
        graph.output("lexical", ["kept"])
        graph.output("colbert", ["kept", self.colbert.out_features])

    def _linear(self, states: str, weight_and_bias: tuple[Array, Array], name: str) -> str:
        fed = self.linear.feed(self.graph, states, site=name)
        return self.linear.multiply(self.graph, fed, *weight_and_bias, name=name)

    def _add_and_norm(self, states: str, skipped: str, norm: str) -> str:
        added = self.graph.node("Add", states, skipped, name=f"{norm}.sum")
        names = [f"{norm}.{part}" for part in ("weight", "bias")]
        parts = [self.graph.constant(name, _array(self._tensor(name, self.shape.hidden))) for name in names]
        return self.graph.node("LayerNormalization", added, *parts, name=norm, epsilon=self.shape.eps)

    def _dense(self, layer: str, inputs: int, outputs: int) -> tuple[Array, Array]:
        """`(in, out)` weight and `(out,)` bias."""
        weight = self._tensor(f"{layer}.weight", outputs, inputs)
        return _array(weight).T, _array(self._tensor(f"{layer}.bias", outputs))

    def _tensor(self, name: str, *dimensions: int) -> Tensor:
        tensor = self.weights[name]
        if tuple(tensor.shape) != dimensions:
            raise ModelError(
                f"{name} is {tuple(tensor.shape)}, must be {dimensions} as config.json says: fetch the checkpoint again"
            )
        return tensor

    def _int(self, value: int) -> str:
        return self.graph.constant(f"int_{value}", np.array(value, np.int64))

    def _ints(self, name: str, values: list[int]) -> str:
        return self.graph.constant(name, np.array(values, np.int64))


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    return array


def _with_dimension(columns: Array, heads: int, value: float) -> Array:
    """Give each head one dimension more, filled with a value: `(..., heads * d)` to `(..., heads * (d + 1))`."""
    split = columns.reshape(*columns.shape[:-1], heads, -1)
    wider = np.concatenate([split, np.full((*split.shape[:-1], 1), value, np.float32)], axis=-1)
    return wider.reshape(*columns.shape[:-1], -1)
