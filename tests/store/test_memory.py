"""MemoryStore passes the suite; its scores are those of the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m3rag.store import MemoryStore
from m3rag.testing import HashEncoder, StoreSuite
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import LEGS, Chunk, ModelInfo


class TestMemoryStore(StoreSuite):
    def make_store(self, path: Path, model: ModelInfo) -> MemoryStore:
        return MemoryStore(model)


def test_scores_follow_the_definitions() -> None:
    rng = np.random.default_rng(1)
    example, query = random_document(rng, "a.md", chunks=12), random_query(rng)
    store = MemoryStore(MODEL)
    store.put_document(example.record, example.parts())
    weights = query.lexical_dicts()[0]
    for i, chunk in enumerate(example.chunks):
        one = example.output[i]
        dense = sum(float(a) * float(b) for a, b in zip(query.dense[0], one.dense[0], strict=True))
        lexical = sum(w * weights.get(token, 0.0) for token, w in one.lexical_dicts()[0].items())
        best = [
            max((float(q @ p) for p in one.colbert.astype(float)), default=0.0) for q in query.colbert.astype(float)
        ]
        assert store.score(query, "dense", [chunk.id])[chunk.id] == pytest.approx(dense, abs=1e-5)
        assert store.score(query, "lexical", [chunk.id])[chunk.id] == pytest.approx(lexical, abs=1e-5)
        assert store.score(query, "colbert", [chunk.id])[chunk.id] == pytest.approx(sum(best) / len(best), abs=1e-5)


def test_the_same_vector_has_the_same_score_anywhere() -> None:
    encoder = HashEncoder(dense_dim=384, colbert_dim=64)
    texts = [f"ducks swim in pond number {i} with water plants" for i in range(5)]
    output = encoder.encode_documents(texts)[[i % 5 for i in range(203)]]
    query = encoder.encode_queries(["do ducks number swim 3 pond"])
    chunks = [Chunk(f"c{i}", f"d{i % 7}", texts[i % 5], 0, 1) for i in range(203)]
    store = MemoryStore(encoder.info)
    store.upsert(chunks, output)
    for leg in LEGS:
        found = dict(store.candidates(query, leg, k=1000))
        assert len({(int(id_[1:]) % 5, score) for id_, score in found.items()}) == 5
        for ids in (list(found), ["c7"], ["c9", "c4", "c0"]):
            assert store.score(query, leg, ids) == {id_: found[id_] for id_ in ids}


def test_later_changes_by_the_caller_do_not_reach_the_store() -> None:
    metadata = {"tags": ["a"]}
    example = random_document(np.random.default_rng(1), "a.md", chunks=1, metadata=metadata)
    store = MemoryStore(MODEL)
    store.put_document(example.record, example.parts())
    metadata["tags"].append("b")
    assert store.count(filter={"tags": "b"}) == 0


def test_the_fake_encoder_finds_what_shares_words() -> None:
    encoder = HashEncoder()
    texts = ["ducks swim on the pond", "the engine needs oil", "鸭子在游泳"]
    example = random_document(np.random.default_rng(1), "a.md", chunks=3, model=encoder.info)
    store = MemoryStore(encoder.info)
    store.put_document(example.record, [(example.chunks, encoder.encode_documents(texts))])
    for leg in ("dense", "lexical", "colbert"):
        assert store.candidates(encoder.encode_queries(["Oil engine!"]), leg, k=1)[0][0] == "a.md@v1#1"
        assert store.candidates(encoder.encode_queries(["游泳"]), leg, k=1)[0][0] == "a.md@v1#2"
