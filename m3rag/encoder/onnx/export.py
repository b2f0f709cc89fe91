"""Exports on disk: made once for a checkpoint, whole or not at all, kept in the user's cache."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.mini import cache_folder
from m3rag.encoder.onnx import FORMAT
from m3rag.encoder.onnx.builder import GraphBuilder
from m3rag.encoder.onnx.graph import Array, FloatLinear, Linear, M3Graph
from m3rag.encoder.onnx.quantize import Int8Linear
from m3rag.errors import ModelError


def write_export(
    checkpoint: Checkpoint, folder: Path, *, int8: bool, divisors: Mapping[str, Array] | None = None
) -> None:
    """Write the graph of a checkpoint and its weights into an empty folder; `divisors` are those of `Int8Linear`."""
    linear: Linear = Int8Linear(divisors) if int8 else FloatLinear()
    with GraphBuilder(folder) as graph:
        M3Graph(checkpoint, graph, linear).build()
        graph.write()


def cached_export(checkpoint: Checkpoint, *, int8: bool) -> Path:
    """Where the export of a checkpoint is kept, whether it is there or not.

    The name is a hash of all that the graph and its numbers depend on.
    """
    parts = [checkpoint.fingerprint(), FORMAT]
    if int8:
        # Without instructions for it a processor's products of bytes saturate: measured there, not here.
        parts += ["int8", platform.machine(), str(has_int8_products())]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / "onnx" / f"{'int8' if int8 else 'float32'}-{key}"


def has_int8_products() -> bool:
    """Whether the processor multiplies bytes with 32-bit sums (VNNI, AMX, or the dot product of ARM)."""
    # torch.cpu tells since 2.11; an older torch is taken to run on an older processor.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(has) for name, has in capabilities.items() if "vnni" in name or name in {"amx_int8", "neon_dot"})


def ensure_export(checkpoint: Checkpoint) -> Path:
    """The folder of a checkpoint's float32 export, made on first use.

    Raises:
        ModelError: If the checkpoint is damaged, or the cache cannot be written.
        ImportError: If the package onnx is not installed.
    """
    folder = cached_export(checkpoint, int8=False)
    if not folder.is_dir():
        with cache_lock():
            if not folder.is_dir():
                with appearing(folder) as work:
                    write_export(checkpoint, work, int8=False)
    return folder


@contextmanager
def cache_lock() -> Iterator[None]:
    """Let one process write exports; another waits, and finds what this one made.

    Raises:
        ModelError: If the cache may not be written.
    """
    file = cache_folder() / "onnx" / ".lock"
    with _told_of(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A work folder that becomes `folder`, by one rename, when it has been filled.

    A failure leaves nothing; what a killed process left is removed by the next to write there.
    `folder` itself is replaced if it exists.

    Raises:
        ModelError: If the disk is full or may not be written.
    """
    work = folder.with_name(f".{folder.name}.partial")
    with _told_of(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot write an exported model to {folder} ({error.strerror or error}): it takes the room of the "
            "model's weights there; free it, or choose another folder (M3RAG_CACHE is the cache's)"
        ) from error
