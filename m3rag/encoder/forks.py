"""What a process that was forked can do with a model of its parent's: little, so it is told, and never waits."""

from __future__ import annotations

import os
import threading

import torch

from m3rag.errors import ModelError


class OfThisProcess:
    """Where a model was loaded, and the lock of its forward pass.

    Args:
        device: What the model is on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = os.getpid()
        self._locks: dict[int, threading.Lock] = {}

    @property
    def lock(self) -> threading.Lock:
        """One a process: what another thread of the parent held during a fork, nobody in the child would let go."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def require_threads(self) -> None:
        """Refuse to wait for threads of torch, or for a GPU, that stayed in the process that this one was forked from.

        Raises:
            ModelError: If this process was forked since the model was loaded, and torch has several threads or
                the model is on a GPU.
        """
        if self._process == os.getpid():
            return
        if self._device.type == "cuda":
            raise ModelError(
                f"the model was loaded on {self._device} in the process that this one was forked from, which alone can "
                "use it: start processes by spawn"
            )
        if torch.get_num_threads() > 1:
            raise ModelError(
                "the model was loaded in the process that this one was forked from, where torch's threads stayed: "
                "start processes by spawn, or call torch.set_num_threads(1) in this one first"
            )
