"""Checkpoints of every kind that can be exported, and a cache of each test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from m3rag.encoder.batching import Batch, pack
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.mini import ensure_mini
from m3rag.encoder.model import M3Model, load_model
from m3rag.encoder.onnx.export import write_export
from m3rag.encoder.onnx.session import OnnxNetwork
from m3rag.encoder.tokenizer import Tokenizer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for exports."""
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def mini_folder() -> Path:
    """The checkpoint of `mini`, to be had by its folder also where the cache is another."""
    return ensure_mini()


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[M3Model, OnnxNetwork]]:
    """The two networks of a checkpoint folder: torch's, and an export's."""

    def load(folder: Path, *, int8: bool = False) -> tuple[M3Model, OnnxNetwork]:
        checkpoint = Checkpoint.find(str(folder))
        export = tmp_path_factory.mktemp("export")
        write_export(checkpoint, export, int8=int8)
        network = OnnxNetwork(export, device=CPU)
        shutil.rmtree(export)
        return load_model(checkpoint, dtype=torch.float32, device=CPU), network

    return load


@pytest.fixture(scope="session")
def packed() -> Callable[..., Batch]:
    """Texts as the batch that the network of a checkpoint folder sees."""

    def make(folder: Path, texts: list[str], *, dropped: int = 1, mcls: bool = False, pooling: str = "cls") -> Batch:
        limit = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
        tokenizer = Tokenizer(folder / "tokenizer.json")
        ids = tokenizer.encode(texts, max_length=512 if limit == 512 else limit - 2).ids
        return pack(ids, dropped=dropped, pooling=pooling, mcls=mcls)  # type: ignore[arg-type]

    return make
