"""Filters in Qdrant Edge: the index that ranges get."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from m3rag.store import MemoryStore, QdrantEdgeStore
from m3rag.store.protocol import Filter
from m3rag.store.terms import key_digest
from m3rag.testing.data import MODEL, random_document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


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
