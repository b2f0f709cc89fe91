"""How a Qdrant Edge index keeps its token vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, IndexMismatchError
from m3rag.store.codec import CODECS, DEFAULT_CODEC
from m3rag.store.memory import MemoryStore
from m3rag.store.qdrant_edge import QdrantEdgeStore
from m3rag.testing.data import MODEL, random_document, random_query


@pytest.mark.parametrize("codec", CODECS)
def test_an_index_scores_what_its_codec_keeps_also_when_opened_again(tmp_path: Path, codec: str) -> None:
    rng = np.random.default_rng(0)
    example, oracle = random_document(rng, "a", chunks=30), MemoryStore(MODEL, codec=codec)
    oracle.put_document(example.record, example.parts())
    ids = [chunk.id for chunk in example.chunks]
    with QdrantEdgeStore.create(tmp_path / "index", MODEL, codec=codec) as store:
        store.put_document(example.record, example.parts())
        assert store.manifest.codec == codec
    # The index has its own codec, whatever the opener would choose.
    with QdrantEdgeStore.open_or_create(tmp_path / "index", MODEL, codec="float16") as store:
        assert store.manifest.codec == codec
        for _ in range(5):
            query = random_query(rng)
            assert store.score(query, "colbert", ids) == pytest.approx(oracle.score(query, "colbert", ids), abs=2e-3)
        np.testing.assert_array_equal(store.representations(ids).colbert, oracle.representations(ids).colbert)


def test_a_memory_store_keeps_what_the_codec_stands_for() -> None:
    rng = np.random.default_rng(1)
    example = random_document(rng, "a", chunks=10)
    store, plain = MemoryStore(MODEL, codec="int4"), MemoryStore(MODEL)
    for each in (store, plain):
        each.put_document(example.record, example.parts())
    ids = [chunk.id for chunk in example.chunks]
    difference = store.representations(ids).colbert - plain.representations(ids).colbert
    assert 0.01 < np.abs(difference).max() < 0.3
    assert store.manifest.codec == "int4"


def test_the_default_is_named_and_what_there_is_not_is_refused(tmp_path: Path) -> None:
    with QdrantEdgeStore.create(tmp_path / "index", MODEL) as store:
        assert store.manifest.codec == DEFAULT_CODEC
    with pytest.raises(ConfigurationError, match="'int3' for token vectors: choose one of float16, int8, int4, binary"):
        QdrantEdgeStore.create(tmp_path / "other", MODEL, codec="int3")
    assert not (tmp_path / "other").exists()


def test_an_index_from_before_codecs_has_float16_and_a_later_codec_is_refused(tmp_path: Path) -> None:
    QdrantEdgeStore.create(tmp_path / "index", MODEL, codec="float16").close()
    manifest = tmp_path / "index" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    del content["codec"]
    manifest.write_text(json.dumps(content), encoding="utf-8")
    with QdrantEdgeStore.open(tmp_path / "index") as store:
        assert store.manifest.codec == "float16"
    manifest.write_text(json.dumps({**content, "codec": "int2"}), encoding="utf-8")
    with pytest.raises(IndexMismatchError, match=r"keeps token vectors as 'int2'.* upgrade"):
        QdrantEdgeStore.open(tmp_path / "index")
