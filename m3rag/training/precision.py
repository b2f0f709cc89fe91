"""In which precision a step's matrices are multiplied."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from m3rag.encoder.device import choose_dtype
from m3rag.training.settings import Precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """A context, to be entered any number of times, in which products are computed in this precision.

    Raises:
        ConfigurationError: If the CPU has no instructions for it.
    """
    wanted: str = precision
    if wanted == "auto":
        # Older devices emulate it.
        has = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        wanted = "bfloat16" if has else "float32"
    if choose_dtype(wanted, device) == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
