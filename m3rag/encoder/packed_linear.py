"""A CPU's products with weights that lie as its kernels read them.

`torch.nn.functional.linear` takes a weight as it is, to be laid out in every product. oneDNN, which torch brings along,
takes one that was laid out before, and computes the activation on the way out (figures: benchmarks/README.md, The
encoder). These are the operators that `torch.compile` puts in for a CPU.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from m3rag.encoder.transformer import Layer, Transformer

FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
"""What oneDNN calls the activations of `transformer.ACTIVATIONS`."""


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
