from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.encoder.batching import Batch
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.engine import DeviceEngine
from m3rag.encoder.model import Representations
from m3rag.errors import ModelError

TEXTS = ["ducks swim", "", "a much longer text about ducks that swim on ponds " * 9, "🦆", "ducks swim"]


@pytest.fixture
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu")


def engine_of(encoder: M3Encoder) -> DeviceEngine:
    assert isinstance(encoder.engine, DeviceEngine)
    return encoder.engine


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    # What torch raises on a CPU.
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_and_only_it(encoder: M3Encoder, error: Exception) -> None:
    expected = encoder.encode_documents(TEXTS * 4).dense
    sizes: list[int] = []
    real = engine_of(encoder).network

    def scarce(batch: Batch) -> Representations:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return real(batch)

    engine_of(encoder).network = scarce
    done: list[int] = []
    found = encoder.encode_documents(TEXTS * 4, progress=done.append).dense
    assert np.allclose(found, expected, atol=1e-5)
    assert sum(done) == len(TEXTS) * 4
    assert sum(s for s in sizes if s <= 3) == len(TEXTS) * 4  # no text was computed twice


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and limits a process's address space")
def test_where_memory_ends_smaller_batches_are_computed(tiny_checkpoint: Path) -> None:
    code = f"""
import resource, warnings
import numpy as np
from pathlib import Path
from m3rag.encoder import M3Encoder
warnings.simplefilter("ignore")
encoder = M3Encoder({str(tiny_checkpoint)!r}, device="cpu", batch_tokens=1 << 19)
texts = ["several ducks swim " * 400] * 400
expected = encoder.encode_documents(texts[:1]).dense
real, sizes = encoder.engine.network, []

def noted(batch):
    sizes.append(len(batch))
    return real(batch)

encoder.engine.network = noted
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (768 << 20), -1))
dense = encoder.encode_documents(texts).dense
assert np.abs(dense - expected).max() < 1e-5
print(sizes[0], max(sizes[-3:]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    first, last = map(int, run.stdout.split())
    assert last < first


def test_one_text_too_large_for_memory_is_an_error_with_a_remedy(encoder: M3Encoder) -> None:
    def full(_: Batch) -> Representations:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine_of(encoder).network = full
    with pytest.raises(ModelError, match=r"does not fit in the memory.*lower max_length"):
        encoder.encode_documents(["ducks"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_does_not_wait_for_threads_of_its_parent(tiny_checkpoint: Path, threads: int) -> None:
    code = f"""
import os, signal, threading, warnings
import torch
from m3rag.encoder import M3Encoder
from m3rag.errors import ModelError
warnings.simplefilter("ignore")
torch.set_num_threads({threads})
encoder = M3Encoder({str(tiny_checkpoint)!r}, device="cpu")
encoder.encode_documents(["ducks"] * 20)
real, parent, started, go_on = encoder.engine.network, os.getpid(), threading.Event(), threading.Event()

def slow(batch):
    if os.getpid() == parent:
        started.set()
        assert go_on.wait(60)
    return real(batch)

encoder.engine.network = slow
thread = threading.Thread(target=encoder.encode_documents, args=(["ducks"],))
thread.start()
assert started.wait(60)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    calls = [
        lambda: encoder.encode_documents(["ducks"] * 20),
        lambda: encoder.token_weights("ducks"),
    ]
    told = []
    for call in calls:
        try:
            assert len(call())
        except ModelError as error:
            told.append("start processes by spawn, or call torch.set_num_threads(1)" in str(error))
    torch.set_num_threads(1)
    assert len(encoder.encode_documents(["ducks"])) == 1
    os._exit(0 if told == {[True] * 2 if threads > 1 else []} else 1)
status = os.waitpid(pid, 0)[1]
go_on.set()
thread.join()
assert status == 0, status
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


def test_other_errors_are_not_swallowed(encoder: M3Encoder) -> None:
    def broken(_: Batch) -> Any:
        raise RuntimeError("a bug")

    engine_of(encoder).network = broken
    with pytest.raises(RuntimeError, match="a bug"):
        encoder.encode_documents(TEXTS)
