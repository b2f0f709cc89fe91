"""Channels that are much larger than others, made even before they become bytes, as SmoothQuant does.

Xiao et al., SmoothQuant, 2022 (arXiv 2211.10438), section 4: `x @ w = (x / s) @ (s * w)` for any `s` a channel, and
`s = sqrt(max|x| / max|w|)` shares what is uneven between both sides. Here `x / s` is computed in the graph, since what
a norm gives is also the residual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.onnx.graph import Array
from m3rag.encoder.weights import Weights

if TYPE_CHECKING:
    from m3rag.encoder.encoder import M3Encoder

WEIGHTS = {
    "qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
    "out": ["attention.output.dense"],
    "up": ["intermediate.dense"],
    "down": ["output.dense"],
}
"""The products of a layer, and the weights of each in a checkpoint."""

LEAST = 1e-3
"""The smallest channel is taken for this share of the largest."""


def divisors(checkpoint: Checkpoint, encoder: M3Encoder, texts: Sequence[str]) -> dict[str, Array]:
    """What each input channel of each product is divided by, found on some texts.

    Args:
        checkpoint: The model.
        encoder: The same on the CPU, computed by torch.
        texts: Real ones: of what they give, each channel's largest value counts.

    Returns:
        `(in,)` float32 by the product's name, such as `layers.0.qkv`.
    """
    weights = Weights(checkpoint)
    found = {}
    for name, states in _largest(encoder, texts).items():
        _, i, product = name.split(".")
        rows = [weights[f"encoder.layer.{i}.{part}.weight"].float().abs().amax(0).numpy() for part in WEIGHTS[product]]
        weight = np.max(rows, axis=0)
        if states.max() > 0 < weight.max():
            found[name] = np.sqrt(_raised(states) / _raised(weight))
    return found


def _raised(largest: Array) -> Array:
    # Who is small in all that was seen may be larger in another text, and would then be made the largest of all.
    raised: Array = np.maximum(largest, largest.max() * LEAST)
    return raised


def _largest(encoder: M3Encoder, texts: Sequence[str]) -> Mapping[str, Array]:
    """The largest absolute value of each input channel of each product."""
    found: dict[str, Array] = {}

    def seen(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().amax(0).float().numpy()
            found[name] = np.maximum(found[name], largest) if name in found else largest

        return hook

    backbone = encoder.network.backbone
    with ExitStack() as hooks, torch.inference_mode():
        hooks.callback(setattr, backbone, "rows_for", backbone.rows_for)
        backbone.rows_for = int  # filler is no text
        for i, layer in enumerate(backbone.layers):
            for product in WEIGHTS:
                handle = layer.get_submodule(product).register_forward_pre_hook(seen(f"layers.{i}.{product}"))
                hooks.callback(handle.remove)
        encoder.encode_documents(list(texts))
    return found
