"""A CPU's products with weights that lie as its kernels read them.

`torch.nn.functional.linear` takes a weight as it is, to be laid out in every product. oneDNN, which torch brings along,
takes one that was laid out before, and computes the activation on the way out (figures: benchmarks/README.md, The
encoder). These are the operators that `torch.compile` puts in for a CPU.
"""

from __future__ import annotations

import platform
from functools import lru_cache

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

SIZES = sorted([2**i for i in range(4, 14)] + [3 * 2**i for i in range(3, 12)])
"""Numbers of tokens that products are made for: 16, 24, 32, ... 6144, 8192. oneDNN keeps what it prepared for each
number that it meets, up to a thousand of them at most of a megabyte each."""

SMALL, WASTE = 64, 16
"""So few tokens are filled up to the next size at once, more of them where that takes a sixteenth at most."""


@lru_cache(maxsize=4096)
def blocks(tokens: int) -> tuple[tuple[int, int], ...]:
    """Cut tokens into parts: (how many, the size that they are filled up to)."""
    cut = []
    while tokens:
        size = next((size for size in SIZES if size >= tokens), SIZES[-1])
        if size < tokens or (tokens > SMALL and (size - tokens) * WASTE > tokens):
            size = max(size for size in SIZES if size <= tokens)
        cut.append((min(size, tokens), size))
        tokens -= cut[-1][0]
    return tuple(cut)


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
        parts, start = [], 0
        for tokens, size in blocks(len(states)):
            part = states[start : start + tokens]
            parts.append(self._product(F.pad(part, (0, 0, 0, size - tokens)) if size > tokens else part)[:tokens])
            start += tokens
        return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else self._product(states)

    def _product(self, states: Tensor) -> Tensor:
        name, form = self.activation
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, name, [], form)
        return product


def pack_products(backbone: Transformer) -> None:
    """Lay the weights of a network out for inference, layer by layer, where this machine gains by it."""
    if next(backbone.parameters()).device.type != "cpu" or not _is_supported(backbone.dtype):
        return
    for layer in backbone.layers:
        assert isinstance(layer, Layer)
        for name, activation in (("qkv", None), ("out", None), ("up", backbone.shape.activation), ("down", None)):
            setattr(layer, name, PackedLinear(getattr(layer, name), activation))
        layer.activation = nn.Identity()


def _is_supported(dtype: torch.dtype) -> bool:
    """Whether torch was built with these operators, for a kind of processor on which they were measured."""
    ops = torch.ops.mkldnn
    has = all(hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not has or platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported()))
