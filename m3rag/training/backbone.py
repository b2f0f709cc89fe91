"""What of a backbone moves in training: all of it, deltas of low rank, or nothing."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.transformer import Transformer
from m3rag.errors import ConfigurationError
from m3rag.training.settings import RunSettings

LORA_TARGETS = ("qkv", "out", "up", "down")
"""The matrices of a layer that get a delta of low rank: all."""


class Subject(Protocol):
    """A network in training."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What it started from."""

    @property
    def network(self) -> nn.Module:
        """Its backbone is called `backbone`."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def free_backbone(backbone: Transformer, settings: RunSettings) -> None:
    """Let those weights of a frozen backbone move that the settings say, and put dropout in.

    Args:
        backbone: In float32, apart from a word table stored in float16.
        settings: The run.

    Raises:
        ConfigurationError: If deltas are wanted on more layers than there are.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    if settings.method == "full":
        backbone.float()  # a word table in float16 would lose most of each step
        backbone.requires_grad_(True)
    elif settings.method == "lora":
        _inject_lora(backbone, settings)
    if settings.dropout and settings.method != "heads":
        _add_dropout(backbone, settings.dropout)


def _inject_lora(backbone: Transformer, settings: RunSettings) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ImportError('method "lora" needs peft: pip install "m3rag[train]"', name=error.name) from error
    layers = len(backbone.layers)
    moved = layers if settings.lora_layers is None else settings.lora_layers
    if moved > layers:
        raise ConfigurationError(f"lora_layers is {moved}, must be at most the model's {layers}")
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules=list(LORA_TARGETS),
        layers_to_transform=list(range(layers - moved, layers)),
        layers_pattern="layers",
    )
    # Its own start of the deltas is drawn from torch's generator, which the caller has seeded.
    inject_adapter_in_model(config, backbone)


def merged_backbone(backbone: Transformer) -> dict[str, Tensor]:
    """The backbone's weights by their usual names, deltas of low rank added in; the network stays as it is."""
    merged: dict[str, Tensor] = {}
    modules: dict[str, Any] = dict(backbone.named_modules())
    for name, tensor in backbone.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        merged[plain] = tensor.detach()
        if plain != name and plain.endswith(".weight"):
            delta = modules[plain.removesuffix(".weight")].get_delta_weight("default")
            merged[plain] = (tensor + delta).detach()
    return merged


def _add_dropout(backbone: Transformer, share: float) -> None:
    """Dropout where BERT has it: before each residual sum, and on the embeddings."""

    def drop(module: nn.Module, _: object, states: Tensor) -> Tensor:
        return F.dropout(states, share, training=module.training)

    backbone.norm.register_forward_hook(drop)
    for layer in backbone.layers:
        layer.out.register_forward_hook(drop)  # type: ignore[union-attr]
        layer.down.register_forward_hook(drop)  # type: ignore[union-attr]
