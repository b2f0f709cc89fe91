"""Which device to compute on, and in which precision it is fast there."""

from __future__ import annotations

from typing import Any

import torch

from m3rag.errors import ConfigurationError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

NATIVE_ON_CPU = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16"),
    torch.float16: ("amx_fp16",),
}
"""Processor features that multiply matrices in half precision; others emulate it, six times slower than float32."""


def choose_device(device: str | None) -> torch.device:
    """The device of that name; by default a CUDA device if there is one, else the CPU.

    Raises:
        ConfigurationError: If it cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used on this machine: try device='cpu'") from error


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


def _cpu_has(feature: str) -> bool:
    # torch.cpu tells since 2.11; an older torch is taken to run on an older processor.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(feature))
