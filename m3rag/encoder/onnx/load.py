"""From a checkpoint to its network in ONNX Runtime, by way of the cache; int8 only through the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from m3rag._shell import quoted
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.engine import DeviceEngine
from m3rag.encoder.onnx import gate
from m3rag.encoder.onnx.builder import GRAPH_FILE, WEIGHT_FILE
from m3rag.encoder.onnx.export import appearing, cache_lock, cached_export, ensure_export, write_export
from m3rag.encoder.onnx.graph import Array
from m3rag.encoder.onnx.session import OnnxNetwork
from m3rag.encoder.onnx.smooth import divisors
from m3rag.errors import ConfigurationError

if TYPE_CHECKING:
    from m3rag.encoder.encoder import M3Encoder

SMOOTHED_ON = 2
"""Every second passage of a trial tells which channels are large; the others it has not seen."""


def load_onnx(checkpoint: Checkpoint, *, device: torch.device, int8: bool = False) -> OnnxNetwork:
    """Load a checkpoint for inference; its float32 export is made on first use.

    Args:
        checkpoint: The model.
        device: The CPU or a CUDA device; int8 is for CPUs.
        int8: Use the int8 export that `m3rag export MODEL --int8` made and found good.

    Raises:
        ConfigurationError: If there is no good int8 export.
        ImportError: If the packages of the extra `onnx` are missing.
        ModelError: If the checkpoint is damaged, or the cache cannot be written.
    """
    if not int8:
        return OnnxNetwork(ensure_export(checkpoint), device=device)
    if device.type != "cpu":
        raise ConfigurationError(f"int8 is for CPUs, not for {device}: choose device='cpu', or another backend")
    return OnnxNetwork(_good_int8_export(checkpoint), device=device)


def export_int8(checkpoint: Checkpoint, encoder: M3Encoder, trial: gate.Trial) -> gate.Figures:
    """Make the int8 export of a checkpoint, measure it, and keep it where `load_onnx` finds it if it is good.

    Where plain int8 is not, its channels are made even (`smooth`), which costs a little time. One that is not good
    then is removed; its figures stay, so that an attempt to use it can tell them.

    Args:
        checkpoint: The model.
        encoder: The model in float32 on the CPU, to compare with.
        trial: What to measure on.

    Raises:
        ModelError: If the checkpoint is damaged, or the cache cannot be written.
        ImportError: If the packages of the extra `onnx` are missing.
    """
    exact = gate.encode(encoder, trial)
    with cache_lock(), appearing(cached_export(checkpoint, int8=True)) as work:
        figures = _attempt(checkpoint, encoder, trial, exact, work=work)
        if figures.misses():
            even = divisors(checkpoint, encoder, trial.passages[::SMOOTHED_ON])
            figures = _attempt(checkpoint, encoder, trial, exact, work=work, even=even)
        if figures.misses():
            for name in (GRAPH_FILE, WEIGHT_FILE):
                (work / name).unlink()
        figures.write(work)
    return figures


def _attempt(
    checkpoint: Checkpoint,
    encoder: M3Encoder,
    trial: gate.Trial,
    exact: gate.Encoded,
    *,
    work: Path,
    even: Mapping[str, Array] | None = None,
) -> gate.Figures:
    """Make the int8 export in a folder, with or without divisors, and measure it."""
    write_export(checkpoint, work, int8=True, divisors=even)
    quantized = gate.encode(_with_network(encoder, OnnxNetwork(work, device=torch.device("cpu"))), trial)
    return gate.compare(exact, quantized, answers=trial.answers, smoothed=even is not None)


def _with_network(encoder: M3Encoder, network: OnnxNetwork) -> M3Encoder:
    """The same encoder with another network."""
    other = object.__new__(type(encoder))  # its copy is itself
    vars(other).update(vars(encoder))
    engine = encoder.engine
    assert isinstance(engine, DeviceEngine), "an encoder of several devices is not what int8 is compared with"
    other.engine = DeviceEngine(network, device=engine.device, batch_tokens=engine.batch_tokens, finish=engine.finish)
    return other


def _good_int8_export(checkpoint: Checkpoint) -> Path:
    folder, remedy = cached_export(checkpoint, int8=True), f"m3rag export {quoted(checkpoint.name)} --int8"
    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no int8 export of {checkpoint.name!r} for this machine: `{remedy}` makes one and measures it"
        )
    misses = gate.Figures.read(folder).misses()
    if misses:
        raise ConfigurationError(
            f"the int8 export of {checkpoint.name!r} loses too much: {', '.join(misses)}; "
            f"use backend='onnx', or measure it on your own texts with `{remedy} --texts FILE`"
        )
    return folder
