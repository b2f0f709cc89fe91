from __future__ import annotations

import pytest
import torch

from m3rag.encoder.device import choose_device, choose_dtype
from m3rag.errors import ConfigurationError

CPU = torch.device("cpu")


def test_the_default_is_what_the_device_does_well() -> None:
    assert choose_dtype(None, CPU) == torch.float32
    assert choose_dtype(None, torch.device("cuda")) == torch.float16
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_refused_a_cpu_that_would_emulate_it(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": False}, raising=False)
    with pytest.raises(ConfigurationError, match=rf"dtype '{dtype}' is slower than float32 on this CPU.*leave dtype"):
        choose_dtype(dtype, CPU)


def test_half_precision_is_taken_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
