"""A model is in memory once, whoever asks for it."""

from __future__ import annotations

import gc
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m3rag.collection import Collection
from m3rag.encoder import M3Encoder
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.loaded import loaded
from m3rag.settings import Settings


def test_indexes_and_frameworks_share_a_model(tmp_path: Path) -> None:
    langchain = pytest.importorskip("m3rag.langchain", reason="langchain-core is not installed")
    llama_index = pytest.importorskip("m3rag.llama_index", reason="llama-index-core is not installed")
    settings = Settings(model="mini")
    with Collection(tmp_path / "a", settings=settings) as one, Collection(tmp_path / "b", settings=settings) as other:
        assert one.encoder is other.encoder
        assert langchain.M3Embeddings(model="mini").encoder is one.encoder
        assert llama_index.M3Embedding(model_name="mini")._loaded() is one.encoder
        assert M3Encoder("mini") is not one.encoder


def test_threads_load_a_model_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len({id(one) for one in list(pool.map(lambda _: loaded("mini"), range(4)))}) == 1


def test_another_option_or_name_is_another_encoder() -> None:
    first = loaded("mini", max_length=None, dtype="float32")
    assert loaded("mini", dtype="float32", device=None) is first
    assert loaded("mini", dtype="float32", max_length=64).max_length == 64
    assert loaded(os.fspath(Checkpoint.find("mini").folder), dtype="float32") is not first


def test_a_process_that_was_forked_loads_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = loaded("mini")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert loaded("mini") is not ours


def test_a_checkpoint_that_was_changed_is_another_model(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(Checkpoint.find("mini").folder, folder)
    before = loaded(str(folder))
    (folder / "m3rag.json").write_text((folder / "m3rag.json").read_text() + "\n")
    after = loaded(str(folder))
    assert after is not before
    assert after.info.fingerprint != before.info.fingerprint


def test_a_model_that_nobody_holds_is_let_go() -> None:
    kept = weakref.ref(loaded("mini", max_length=33))
    gc.collect()
    assert kept() is None
