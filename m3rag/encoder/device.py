"""Which device to compute on, and in which precision it is fast there."""

from __future__ import annotations

from typing import Any

import torch

from m3rag.errors import ConfigurationError

OUT_OF_MEMORY = ("DefaultCPUAllocator", "bad_alloc", "CUDA error: out of memory")
"""What torch says where the host's memory, oneDNN's or a GPU's before its allocator is full."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

NATIVE_ON_CPU = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16"),
    torch.float16: ("amx_fp16",),
}
"""Processor features that multiply matrices in half precision; others emulate it, six times slower than float32."""


Device = str | int | torch.device
"""A device by its name, such as `cuda:1`; a number is that of a CUDA device."""


def device_name(device: Device) -> str:
    """The name of a device, as torch has it.

    Raises:
        ConfigurationError: If it is neither a name, a number nor a device.
    """
    if isinstance(device, bool) or not isinstance(device, Device):
        raise ConfigurationError(f"device is {device!r}, must be a name such as 'cpu' or 'cuda:0'")
    return f"cuda:{device}" if isinstance(device, int) else str(device)


def choose_device(device: Device | None) -> torch.device:
    """That device; by default a CUDA device if there is one, else the CPU.

    Raises:
        ConfigurationError: If it cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = device_name(device)
    refused = ConfigurationError(f"device {name!r} cannot be used on this machine: try device='cpu'")
    try:
        chosen = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise refused from error
    if chosen.type == "meta":  # which computes shapes alone
        raise refused
    return chosen


def choose_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The precision of that name; by default float16 on CUDA, and float32 elsewhere.

    Raises:
        ConfigurationError: If it is unknown, or the CPU has no instructions for it.
    """
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    chosen = DTYPES[dtype]
    if device.type == "cpu" and chosen in NATIVE_ON_CPU and not any(map(_cpu_has, NATIVE_ON_CPU[chosen])):
        raise ConfigurationError(
            f"dtype {dtype!r} is slower than float32 on this CPU, which has none of "
            f"{', '.join(NATIVE_ON_CPU[chosen])}: leave dtype out"
        )
    return chosen


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation failed for want of memory, of the device or of the host."""
    # torch has a class of its own for its GPUs' allocator alone.
    is_told = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return is_told or isinstance(error, torch.OutOfMemoryError | MemoryError)


def _cpu_has(feature: str) -> bool:
    # torch.cpu tells since 2.11; an older torch is taken to run on an older processor.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(feature))
