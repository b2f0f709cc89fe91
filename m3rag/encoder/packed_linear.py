"""A CPU's products with weights that lie as its kernels read them.

`torch.nn.functional.linear` takes a weight as it is, to be laid out in every product. oneDNN, which torch brings along,
takes one that was laid out before, and computes the activation on the way out (figures: benchmarks/README.md, The
encoder). These are the operators that `torch.compile` puts in for a CPU.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3rag.encoder.transformer import Layer, Transformer

FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
"""What oneDNN calls the activations of `transformer.ACTIVATIONS`."""

MOST = 8192
"""Tokens that are multiplied at once."""


def filled(tokens: int) -> int:
    """The next number of tokens that products are made for: four to an octave, and each 512 from 2,048 on.

    oneDNN keeps what it prepared for each number that it meets, up to a thousand of them at most of a megabyte each.
    """
    step = min(512, 1 << max(4, (tokens - 1).bit_length() - 3))
    return -(-tokens // step) * step


class PackedLinear(nn.Module):
    """`activation(x @ weight.T + bias)`, for inference only.

    Args:
        linear: Whose weight is laid out anew; the same numbers, in as much memory.
        activation: One of `FUSED`, or None.
    """

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        # No parameters: what is laid out so can be neither trained nor saved nor moved.
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias.detach()
        self.activation = ("none", "") if activation is None else FUSED[activation]

    def forward(self, states: Tensor) -> Tensor:
        """`(tokens, inputs)` to `(tokens, outputs)`."""
        products = [self._product(part) for part in torch.split(states, MOST)]
        return products[0] if len(products) == 1 else torch.cat(products)

    def _product(self, states: Tensor) -> Tensor:
        tokens, (name, form) = len(states), self.activation
        if missing := filled(tokens) - tokens:
            states = F.pad(states, (0, 0, 0, missing))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, name, [], form)
        return product[:tokens]


def pack_products(backbone: Transformer) -> None:
    """Lay the weights of a network out for inference, layer by layer, where this machine gains by it."""
    if next(backbone.parameters()).device.type != "cpu" or not _is_supported(backbone.dtype):
        return
    for layer in backbone.layers:
        assert isinstance(layer, Layer)
        for name, activation in (("qkv", None), ("out", None), ("up", backbone.shape.activation), ("down", None)):
            setattr(layer, name, PackedLinear(getattr(layer, name), activation))
        layer.activation = nn.Identity()
    backbone.rows_for = filled


def _is_supported(dtype: torch.dtype) -> bool:
    """Whether torch was built with these operators, for a kind of processor on which they were measured."""
    ops = torch.ops.mkldnn
    has = all(hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not has or platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported()))
