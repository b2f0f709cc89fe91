"""Low-rank deltas: what training moved in a backbone's matrices, small enough to ship."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from m3rag.errors import ModelError

Tensors = Mapping[str, npt.NDArray[Any]]

DOWN, UP = ".down", ".up"
"""Suffixes of a delta's two factors, `(rank, inputs)` and `(outputs, rank)`."""

TOLERANCE = 0.1
"""The part of a delta's norm that may be lost; weights stored in float16 lose a twentieth of a small one."""


def factorise(base: Tensors, trained: Tensors, *, rank: int) -> dict[str, npt.NDArray[np.float16]]:
    """Find the deltas of low rank that lead from one model's tensors to another's.

    Args:
        base: Tensors by name.
        trained: Those after training; names that `base` lacks are left out.
        rank: Of each delta; >= 1.

    Returns:
        For each matrix that differs, `NAME.down` `(rank, inputs)` and `NAME.up` `(outputs, rank)`, float16.

    Raises:
        ModelError: If a tensor differs in shape, or by what is no matrix of this rank.
    """
    found: dict[str, npt.NDArray[np.float16]] = {}
    for name in sorted(base.keys() & trained.keys()):
        if base[name].shape != trained[name].shape:
            raise ModelError(f"{name} is {trained[name].shape} and was {base[name].shape}: give the model's own base")
        difference = trained[name].astype(np.float32) - base[name].astype(np.float32)
        if not difference.any():
            continue
        refused = ModelError(f"{name} was not moved by a delta of rank {rank}: train with --lora --lora-rank {rank}")
        if difference.ndim != 2:
            raise refused
        left, sizes, right = np.linalg.svd(difference, full_matrices=False)
        if np.linalg.norm(sizes[rank:]) > TOLERANCE * np.linalg.norm(sizes):
            raise refused
        # Both factors of like size: neither leaves float16's range.
        root = np.sqrt(sizes[:rank])
        found[name + DOWN] = (root[:, None] * right[:rank]).astype(np.float16)
        found[name + UP] = (left[:, :rank] * root).astype(np.float16)
    return found


def with_deltas(state: Tensors, deltas: Tensors) -> dict[str, npt.NDArray[Any]]:
    """A model's tensors with deltas added, each in its own dtype.

    Args:
        state: Tensors by name.
        deltas: As `factorise` gives them.

    Raises:
        ModelError: If a delta is of a tensor that is not there, or does not fit it.
    """
    moved = dict(state)
    for name in sorted(key.removesuffix(DOWN) for key in deltas if key.endswith(DOWN)):
        # In single precision the order of a machine's sums would decide some last digits, and so the fingerprint.
        down, up = deltas[name + DOWN].astype(np.float64), deltas[name + UP].astype(np.float64)
        if name not in state or state[name].shape != (len(up), down.shape[1]):
            raise ModelError(f"the deltas do not fit the model: {name} is missing or of another shape")
        moved[name] = (state[name] + up @ down).astype(state[name].dtype)
    return moved
