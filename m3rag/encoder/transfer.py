"""Numbers on their way to a device and back, beside what it computes."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on a device."""
    tensor = torch.as_tensor(array)
    # Pinned memory lets the copy overlap with the kernels already queued.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class ToHost:
    """Tensors of one device on their way from it.

    Args:
        *tensors: At least one; what is queued after them is not waited for.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._host = [_to_host(tensor) for tensor in tensors]
        self._arrived = torch.cuda.Event() if tensors[0].is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> list[Tensor]:
        """The tensors in the host's memory, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host


def _to_host(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.cpu()
    # Only a copy to pinned memory runs beside the kernels of the next batch.
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
