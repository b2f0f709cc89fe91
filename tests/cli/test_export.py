"""`m3rag export` on real models, as a user would type it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.encoder import M3Encoder
from m3rag.encoder.mini import ensure_mini
from m3rag.encoder.onnx import gate

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for exports, and a working folder without settings."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def mini_folder() -> str:
    """The checkpoint of `mini`, converted in the cache of all tests."""
    return str(ensure_mini())


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments])


def test_float32_with_a_copy(tiny_checkpoint: Path, cache: Path) -> None:
    result = run(str(tiny_checkpoint), "--out", "copy")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert str(Path("copy").absolute()) in result.stderr
    (kept,) = (path for path in (cache / "onnx").iterdir() if path.name.startswith("float32-"))
    assert {path.name: path.read_bytes() for path in Path("copy").iterdir()} == {
        path.name: path.read_bytes() for path in kept.iterdir()
    }
    # What it made is what the encoder uses, not another export.
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    texts = ["Ducks swim.", "", "several ducks " * 300]
    onnx, torch = (
        M3Encoder(str(tiny_checkpoint), device="cpu", backend=backend, colbert_dtype="float32").encode_documents(texts)
        for backend in ("onnx", "torch")
    )
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert np.abs(onnx.dense - torch.dense).max() <= 1e-5
    assert np.abs(onnx.colbert - torch.colbert).max() <= 1e-5
    assert abs(onnx.lexical - torch.lexical).max() <= 1e-5


def test_int8_of_mini_is_measured_kept_and_used(mini_folder: str) -> None:
    result = run(mini_folder, "--int8", "--json", "--out", "copy")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["schema"] == "m3rag.export/1"
    assert told["misses"] == []
    assert told["figures"]["texts"] == 200
    assert told["figures"]["dense_cosine_min"] >= 0.995
    assert sorted(path.name for path in Path("copy").iterdir()) == ["gate.json", "model.onnx", "model.onnx.data"]

    texts = ["Ducks swim in the pond.", "Les canards nagent.", "A database is stored on a disk."]
    quantized, exact = (M3Encoder(mini_folder, device="cpu", backend=backend) for backend in ("onnx-int8", "torch"))
    assert quantized.info.fingerprint != exact.info.fingerprint
    cosines = (quantized.encode_documents(texts).dense * exact.encode_documents(texts).dense).sum(axis=1)
    assert 0.995 <= cosines.min() <= cosines.max() < 0.999999


def test_a_refused_int8_is_shown_and_not_kept(
    tiny_checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How near random weights come to the bounds depends on the texts; this one nothing meets.
    monkeypatch.setattr(gate, "AT_LEAST", {**gate.AT_LEAST, "lexical_top5": 1.01})
    lines = [f"line {i} of texts to measure on, {'word ' * (i % 7)}" for i in range(10)]
    Path("texts.txt").write_text("\n".join([*lines, "", "  "]))
    result = run(str(tiny_checkpoint), "--int8", "--texts", "texts.txt", "--out", "copy")
    assert result.exit_code == 5
    assert "on 210 texts" in result.stderr
    assert "is not kept" in result.stderr
    refused = [line for line in result.stdout.splitlines() if line.endswith("refused")]
    assert refused
    assert not Path("copy").exists()
    assert not list((cache / "onnx").glob("*/model.onnx"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["MODEL", "--out", "there"], 2, "there already"),
        (["MODEL", "--texts", "there"], 2, "--int8 too"),
        (["MODEL", "--int8", "--texts", "nowhere"], 2, "nowhere"),
        (["nosuch"], 5, "mini"),
    ],
)
def test_exit_codes(tiny_checkpoint: Path, arguments: list[str], code: int, message: str) -> None:
    Path("there").write_text("")
    result = run(*[str(tiny_checkpoint) if a == "MODEL" else a for a in arguments])
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
