"""Beyond what is scanned, a graph finds nearly the same chunks, and gives them their exact scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from m3rag.output import M3Output
from m3rag.store import DocumentRecord, MemoryStore, QdrantEdgeStore, edge_engine, edge_points, edge_view, qdrant_edge
from m3rag.testing.data import MODEL, random_output, random_query
from m3rag.types import Chunk

CHUNKS = 3000
K = 50


@pytest.fixture(scope="module")
def content() -> tuple[list[Chunk], M3Output]:
    chunks = [Chunk(f"c{i:04}", "d", f"text {i}", i, i + 1, metadata={"odd": i % 2 == 1}) for i in range(CHUNKS)]
    return chunks, random_output(np.random.default_rng(7), CHUNKS)


@pytest.fixture(scope="module")
def oracle(content: tuple[list[Chunk], M3Output]) -> MemoryStore:
    store = MemoryStore(MODEL)
    store.put_document(DocumentRecord("d", "", "1", CHUNKS), [content])
    return store


@pytest.fixture
def store(
    tmp_path: Path, content: tuple[list[Chunk], M3Output], monkeypatch: pytest.MonkeyPatch
) -> Iterator[QdrantEdgeStore]:
    for module in (edge_engine, edge_points, qdrant_edge):
        monkeypatch.setattr(module, "EXACT_UP_TO", 100)
    monkeypatch.setattr(edge_view, "IN_MEMORY", 0)
    with QdrantEdgeStore.create(tmp_path / "index", MODEL) as store:
        store.put_document(DocumentRecord("d", "", "1", CHUNKS), [content])
        with store._engine.shard() as shard:
            assert shard.info().indexed_vectors_count > CHUNKS, "there is no graph"
        yield store


@pytest.mark.parametrize("k", [10, K])
@pytest.mark.parametrize("filter", [None, {"odd": True}])
def test_the_graph_finds_nearly_all_with_exact_scores(
    store: QdrantEdgeStore, oracle: MemoryStore, filter: dict[str, bool] | None, k: int
) -> None:
    rng = np.random.default_rng(8)
    recalls = []
    for _ in range(20):
        query = random_query(rng)
        found = store.candidates(query, "dense", k=k, filter=filter)
        right = dict(oracle.candidates(query, "dense", k=k, filter=filter))
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        scores = oracle.score(query, "dense", [id_ for id_, _ in found])
        assert dict(found) == pytest.approx(scores, abs=1e-5)
        recalls.append(len(right.keys() & dict(found).keys()) / k)
    assert np.mean(recalls) >= 0.99  # without exact scores for all in view .98


def test_the_graph_follows_changes(store: QdrantEdgeStore, content: tuple[list[Chunk], M3Output]) -> None:
    chunks, output = content
    query = random_query(np.random.default_rng(9))
    first = store.candidates(query, "dense", k=K)
    best = first[0][0]
    at = int(best[1:])
    store.delete_chunks([best])
    assert best not in dict(store.candidates(query, "dense", k=K))
    store.upsert([chunks[at]], output[at])
    assert store.candidates(query, "dense", k=K) == first
