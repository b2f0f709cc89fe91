"""An index of an older format is brought to today's when it is opened, whatever interrupts that."""

from __future__ import annotations

import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qdrant

import m3rag.store.edge_upgrade as module
from m3rag.store import FORMAT, MemoryStore, QdrantEdgeStore
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_folder import SHARD
from m3rag.store.edge_seal import SEAL
from m3rag.store.manifest import MANIFEST
from m3rag.store.protocol import Filter
from m3rag.testing.data import MODEL, random_document, random_query

DATA = Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index that m3rag wrote when its format was 3, token vectors in the engine (see `contents`)."""
    with tarfile.open(DATA / "format_3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "format_3"


@pytest.fixture
def contents() -> MemoryStore:
    """The same changes in the same order, as they were made to the index before it was closed."""
    rng = np.random.default_rng(3)
    a, b = random_document(rng, "a.md", chunks=30), random_document(rng, "b.md", chunks=7)
    store = MemoryStore(MODEL, codec="int8")
    store.put_document(a.record, a.parts())
    store.upsert(b.chunks, b.output)
    store.delete_chunks([a.chunks[3].id, b.chunks[2].id])
    store.update_settings({"weights": "1/0.3/1"})
    return store


def same(store: QdrantEdgeStore, oracle: MemoryStore) -> None:
    rng = np.random.default_rng(4)
    chunks = oracle.scan(limit=1000)[0]
    ids = [chunk.id for chunk in chunks]
    assert store.manifest.format == FORMAT
    assert store.documents() == oracle.documents()
    assert store.get(ids) == chunks
    assert store.settings == oracle.settings
    given, kept = oracle.representations(ids), store.representations(ids)
    assert np.array_equal(kept.dense, given.dense)
    assert np.array_equal(kept.lexical.toarray(), given.lexical.toarray())
    assert np.array_equal(kept.offsets, given.offsets)
    assert np.abs(kept.colbert - given.colbert).max() < 0.02  # the engine's own bytes were others
    filters: list[Filter] = [{"lang": "de"}, {"year": {"$gte": 2002}}, {"tags": {"$exists": True}}, {"page": 1}]
    for one in filters:
        assert store.count(filter=one) == oracle.count(filter=one)
    for _ in range(5):
        query = random_query(rng)
        found = store.score(query, "colbert", ids)
        assert found == pytest.approx(oracle.score(query, "colbert", ids), abs=0.01)


def test_an_index_of_format_3_is_all_there(
    path: Path, contents: MemoryStore, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    with caplog.at_level(logging.WARNING), QdrantEdgeStore.open(path, MODEL) as store:
        assert "is brought from format 3 to 4, once" in caplog.text
        same(store, contents)
        added = random_document(rng, "c.md", chunks=5)
        for target in (store, contents):
            target.put_document(added.record, added.parts())
        same(store, contents)
    caplog.clear()
    with caplog.at_level(logging.WARNING), QdrantEdgeStore.open(path, MODEL) as store:
        assert not caplog.text
        same(store, contents)


def test_it_goes_on_where_it_was_interrupted(
    path: Path, contents: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 8)
    upsert, written = EdgeEngine.upsert, list[int]()
    for at in (0, 1, 3):
        left = iter(range(at))

        def interrupted(engine: EdgeEngine, points: list[Any], left: Any = left) -> None:
            if next(left, None) is None and points:
                raise KeyboardInterrupt
            written.append(len(points))
            upsert(engine, points)

        with monkeypatch.context() as patch:
            patch.setattr(EdgeEngine, "upsert", interrupted)
            with pytest.raises(KeyboardInterrupt):
                QdrantEdgeStore.open(path, MODEL)
        assert json.loads((path / MANIFEST).read_text())["format"] == 3
    assert sum(written) > 8
    with QdrantEdgeStore.open(path, MODEL) as store:
        same(store, contents)


def test_what_filters_ask_for_is_written_anew(path: Path, contents: MemoryStore) -> None:
    """Formats 1 and 2 kept less of a chunk for filters."""
    shard = qdrant.EdgeShard.load(str(path / SHARD))
    points = [point.id for point in shard.scroll(qdrant.ScrollRequest(limit=1000))[0]]
    shard.update(qdrant.UpdateOperation.delete_payload(points, ["keys", "numbers", "times"]))
    shard.close()
    (path / SEAL).unlink()
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, "format": 1, "m3rag_version": "0.1.0"}))
    with QdrantEdgeStore.open(path, MODEL) as store:
        same(store, contents)


def test_an_upgraded_index_has_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second open brings the engine's own settings, too
        QdrantEdgeStore.open(path, MODEL).close()
    QdrantEdgeStore.create(tmp_path / "new", MODEL).close()
    old, new = (json.loads((index / SHARD / "edge_config.json").read_text()) for index in (path, tmp_path / "new"))
    assert old == new


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
