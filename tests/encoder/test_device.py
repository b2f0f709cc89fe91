from __future__ import annotations

from pathlib import Path

import pytest
import torch

from m3rag.encoder import M3Encoder
from m3rag.encoder.device import Device, choose_device, choose_dtype, is_out_of_memory
from m3rag.errors import ConfigurationError

CPU = torch.device("cpu")


def test_the_default_is_what_the_device_does_well() -> None:
    assert choose_dtype(None, CPU) == torch.float32
    assert choose_dtype(None, torch.device("cuda")) == torch.float16
    assert choose_device("cpu") == CPU


def test_a_device_of_torch_is_taken(tiny_checkpoint: Path) -> None:
    assert M3Encoder(tiny_checkpoint, device=CPU).device == CPU
    assert M3Encoder(tiny_checkpoint, device=[CPU]).device == CPU


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (99, "device 'cuda:99' cannot be used on this machine"),
        ("meta", "device 'meta' cannot be used"),
        (torch.device("meta"), "device 'meta' cannot be used"),
        ("abacus", "device 'abacus' cannot be used"),
        (True, "device is True, must be a name"),
        (0.5, "device is 0.5, must be a name such as 'cpu' or 'cuda:0'"),
    ],
)
def test_what_computes_nothing_is_refused(device: Device, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        choose_device(device)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_refused_a_cpu_that_would_emulate_it(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": False}, raising=False)
    with pytest.raises(ConfigurationError, match=rf"dtype '{dtype}' is slower than float32 on this CPU.*leave dtype"):
        choose_dtype(dtype, CPU)


def test_half_precision_is_taken_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_want_of_memory_is_told_from_other_failures(error: Exception, is_told: bool) -> None:
    assert is_out_of_memory(error) == is_told
