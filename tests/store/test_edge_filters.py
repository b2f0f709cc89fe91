"""Filters in Qdrant Edge: an index of format 1, and the index that ranges get."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import m3rag.store.edge_changes as module
from m3rag.errors import IndexMismatchError
from m3rag.store import MemoryStore, QdrantEdgeStore
from m3rag.store.edge_seal import SEAL
from m3rag.store.manifest import MANIFEST
from m3rag.store.protocol import Filter
from m3rag.store.terms import key_digest
from m3rag.testing.data import MODEL, random_document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def format_1(path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index as m3rag wrote it in format 1: keywords of values alone, no seal."""
    example = random_document(rng, "old.md", chunks=9)
    with monkeypatch.context() as old:
        written = module.chunk_to_payload
        kept = ("id", "document_id", "text", "start", "end", "page", "headings", "metadata", "terms")
        old.setattr(module, "chunk_to_payload", lambda chunk: {key: written(chunk)[key] for key in kept})
        with QdrantEdgeStore.create(path, MODEL) as store:
            store.put_document(example.record, example.parts())
    (path / SEAL).unlink()
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, "format": 1, "m3rag_version": "0.1.0"}))
    return path


def test_an_index_of_format_1_opens_and_is_filtered_by_values(format_1: Path, rng: np.random.Generator) -> None:
    old, new = random_document(np.random.default_rng(3), "old.md", chunks=9), random_document(rng, "new.md", chunks=5)
    oracle = MemoryStore(MODEL)
    filters: list[Filter] = [
        {"lang": "de"},
        {"lang": {"$ne": "de"}, "year": [2001, 2002.0]},
        {"$or": [{"draft": True}, {"$not": {"tags": {"$nin": ["common"]}}}]},
        {"document_id": {"$exists": True}},
    ]
    for _ in range(2):
        with QdrantEdgeStore.open(format_1, MODEL) as store:
            assert store.manifest.format == 1
            for target in (store, oracle):
                target.put_document(old.record, old.parts())
                target.upsert(new.chunks, new.output)
            assert store.chunks_of("old.md") == list(old.chunks)
            for one in filters:
                assert 0 < store.count(filter=one) == oracle.count(filter=one)
            store.update_settings({"weights": "1/0.3/1"})
            assert store.settings == {"weights": "1/0.3/1"}


@pytest.mark.parametrize(
    "filter",
    [
        {"year": {"$gte": 2001}},
        {"year": {"$exists": True}},
        {"$or": [{"lang": "de"}, {"$not": {"year": date(2024, 1, 1)}}]},
    ],
    ids=repr,
)
def test_what_format_1_cannot_answer_is_refused(format_1: Path, filter: Filter) -> None:
    with QdrantEdgeStore.open(format_1, MODEL) as store:
        refused = r"'year': the index is of format 1 \(m3rag 0\.1\.0\).*m3rag rebuild"
        with pytest.raises(IndexMismatchError, match=refused):
            store.count(filter=filter)
        with pytest.raises(IndexMismatchError, match=refused):
            store.scan(filter=filter)
        with pytest.raises(IndexMismatchError, match=refused):
            store.delete(filter)
        assert store.count() == 9


def test_a_range_gets_an_index_once_there_are_many_points(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = random_document(rng, "a.md", chunks=60)
    oracle = MemoryStore(MODEL)
    filter: Filter = {"year": {"$gte": 2001, "$lt": 2003}, "when": {"$gt": date(2024, 1, 2)}}
    fields = {f"numbers.{key_digest('year')}", f"times.{key_digest('when')}"}

    def indexed() -> set[str]:
        with store._engine.shard() as shard:
            return fields & shard.info().payload_schema.keys()

    with QdrantEdgeStore.create(path, MODEL) as store:
        for target in (store, oracle):
            target.put_document(example.record, example.parts())
        assert store.count(filter=filter) == oracle.count(filter=filter) > 0
        assert indexed() == set()
        monkeypatch.setattr("m3rag.store.edge_engine.RANGES_INDEXED_FROM", 60)
        assert store.count(filter=filter) == oracle.count(filter=filter)
        assert indexed() == fields
        more = random_document(rng, "b.md", chunks=60)
        for target in (store, oracle):
            target.upsert(more.chunks, more.output)
        assert store.count(filter=filter) == oracle.count(filter=filter)
    with QdrantEdgeStore.open(path, MODEL) as store:
        assert indexed() == fields
        assert store.count(filter=filter) == oracle.count(filter=filter)


def test_a_condition_without_values_lets_nothing_pass(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=3)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
        empty: list[Filter] = [{"lang": []}, {"$or": []}, {"$not": {}}, {"document_id": []}]
        assert [store.count(filter=one) for one in empty] == [0, 0, 0, 0]
        assert [store.count(filter={"$not": one}) for one in empty] == [3, 3, 3, 3]
