"""The workers of `torchrun`: one process each, on a device of its own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def workers(device: str | None) -> Iterator[tuple[bool, str | None]]:
    """Join the other workers, where `torchrun` started several.

    Args:
        device: Of each worker; by default, and for `cuda`, the GPU of its own number where there are GPUs.

    Yields:
        Whether this is the first worker, which alone writes; and its device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True, device
        return
    if device in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    # Imported later (an optimizer does), its functions would keep the group as their default, and with it its threads:
    # a process that ends with them may abort.
    importlib.import_module("torch.distributed.nn.functional")
    on_gpu = device is not None and device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield dist.get_rank() == 0, device
        # Another worker's last words may still be under way.
        dist.barrier()
    finally:
        dist.destroy_process_group()
