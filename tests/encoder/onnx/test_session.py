"""Batches are cut so that little is padded; what cannot run says why; threads may share a session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3rag.encoder.batching import Batch
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.model import M3Model
from m3rag.encoder.onnx.export import write_export
from m3rag.encoder.onnx.session import PADDING, OnnxNetwork, groups_of_like_length
from m3rag.errors import ConfigurationError, ModelError

CPU = torch.device("cpu")


@given(st.lists(st.integers(2, 8192), min_size=1, max_size=60), st.integers(1, 4096))
def test_groups_hold_each_text_once_and_waste_little(lengths: list[int], max_tokens: int) -> None:
    groups = groups_of_like_length(np.array(lengths), max_tokens=max_tokens)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for rows in groups:
        tokens = [lengths[row] for row in rows]
        assert len(rows) == 1 or sum(tokens) <= max_tokens
        assert len(rows) * max(tokens) <= PADDING * sum(tokens)


def test_texts_of_one_length_stay_together_in_their_order() -> None:
    (group,) = groups_of_like_length(np.full(9, 20), max_tokens=512)
    assert group.tolist() == list(range(9))


def test_threads_share_a_session(
    both: Callable[..., tuple[M3Model, OnnxNetwork]], packed: Callable[..., Batch], tiny_checkpoint: Path
) -> None:
    network = both(tiny_checkpoint)[1]
    batches = [packed(tiny_checkpoint, [f"{word} " * count]) for word in ("duck", "goose") for count in (5, 90)]
    alone = [network(batch).colbert for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: network(batch).colbert, batches * 4))
    for i, found in enumerate(together):
        assert torch.equal(found, alone[i % 4])


def test_a_damaged_export_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"does not load.*remove the folder"):
        OnnxNetwork(tmp_path, device=CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA may be there for onnxruntime too")
def test_a_device_that_onnxruntime_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="onnxruntime-gpu"):
        OnnxNetwork(tmp_path, device=torch.device("cuda"))
    with pytest.raises(ConfigurationError, match=r"not on mps.*device='cpu'"):
        OnnxNetwork(tmp_path, device=torch.device("mps"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and limits a process's address space")
def test_a_batch_too_large_for_the_memory_is_a_memory_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    # The engine answers a MemoryError with half the batch.
    write_export(Checkpoint.find(str(tiny_checkpoint)), tmp_path, int8=False)
    code = (
        "import resource, sys, numpy as np, torch; from pathlib import Path; from m3rag.encoder.batching import Batch;"
        "from m3rag.encoder.onnx.session import OnnxNetwork;"
        "network = OnnxNetwork(Path(sys.argv[1]), device=torch.device('cpu'));"
        "batch = lambda n: Batch(np.full(n, 7), np.array([n]), np.ones(n, bool), np.eye(1, n, dtype='f')[0]);"
        "network(batch(16));"
        "pages = int(Path('/proc/self/statm').read_text().split()[0]);"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20), -1));"
        "network(batch(8192))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 1
    assert "\nMemoryError: " in process.stderr
