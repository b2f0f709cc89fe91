"""What is no number is told of, whatever computes it and whichever of the three it is in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file, save_file

from m3rag.encoder import M3Encoder
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.engine import DeviceEngine
from m3rag.encoder.finite import require_finite
from m3rag.encoder.model import load_model
from m3rag.errors import ModelError

TEXTS = ["ducks swim", "geese fly"]
TOLD = r"gave an infinity or NaN, .*dtype='float32'.*its weights are damaged"


@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
        elements={"allow_nan": True, "allow_infinity": True},
        fill=st.nothing(),
    ),
    st.booleans(),
)
def test_agrees_with_numpy(array: np.ndarray, turned: bool) -> None:
    part = -array.T if turned else array
    if np.isfinite(part).all():
        require_finite("m", np.ones(1), part)
    else:
        with pytest.raises(ModelError, match=TOLD):
            require_finite("m", np.ones(1), part)


@pytest.fixture
def damaged(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "damaged"))
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_damaged_weights_are_told_of(
    damaged: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "cache"))
    encoder = M3Encoder(damaged, device="cpu", backend=backend)  # type: ignore[arg-type]
    for encode in (
        lambda: encoder.encode_documents(TEXTS),
        lambda: encoder.encode_queries(TEXTS),
        lambda: encoder.encode_dense(TEXTS, role="query"),
    ):
        with pytest.raises(ModelError, match=TOLD):
            encode()
    if backend == "torch":
        with pytest.raises(ModelError, match=TOLD):
            encoder.encode_spans(TEXTS[0], [(0, 5)])


@pytest.mark.parametrize("head", ["sparse_linear", "colbert_linear"])
@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf")])
def test_a_damaged_head_is_told_of(tiny_checkpoint: Path, head: str, number: float) -> None:
    """Such lexical weights would be left out in silence."""
    encoder = M3Encoder(tiny_checkpoint, device="cpu")
    network = load_model(Checkpoint.find(tiny_checkpoint), dtype=torch.float32, device=encoder.device)
    getattr(network, head).bias[:] = number
    assert isinstance(encoder.engine, DeviceEngine)
    encoder.engine.network = network
    with pytest.raises(ModelError, match=TOLD):
        encoder.encode_documents(TEXTS)
