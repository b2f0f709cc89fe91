"""An index goes over to another place, or another model, whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import InputError
from m3rag.rebuild import copy
from m3rag.store import MemoryStore, QdrantEdgeStore
from m3rag.testing import HashEncoder
from m3rag.testing.data import MODEL, Example, random_document, random_output, random_query
from m3rag.types import LEGS, Chunk


@pytest.fixture
def examples() -> list[Example]:
    rng = np.random.default_rng(4)
    return [random_document(rng, name, chunks=n) for name, n in (("a.md", 70), ("b.md", 3), ("empty.md", 0))]


@pytest.fixture
def source(tmp_path: Path, examples: list[Example]) -> QdrantEdgeStore:
    store = QdrantEdgeStore.create(tmp_path / "source", MODEL, codec="float16")  # which a copy keeps to the last bit
    for example in examples:
        store.put_document(example.record, example.parts())
    loose = [Chunk(f"loose {i}", "notes", f"note {i}", 0, 6) for i in range(3)]
    store.upsert(loose, random_output(np.random.default_rng(5), 3))
    store.update_settings({"weights": "1/0.2/0.7", "note": "kept"})
    return store


def test_a_copy_holds_the_same(source: QdrantEdgeStore) -> None:
    target = MemoryStore(MODEL)
    seen = []
    assert copy(source, target, on_document=lambda record: seen.append(record.id)) == 4
    assert seen == ["a.md", "b.md", "empty.md", "notes"]
    assert target.documents() == source.documents()
    assert target.count() == 76
    assert target.settings == source.settings
    query = random_query(np.random.default_rng(6))
    for leg in LEGS:
        found, expected = target.candidates(query, leg, k=100), source.candidates(query, leg, k=100)
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=2e-3)


def test_what_was_copied_is_not_copied_again(source: QdrantEdgeStore, examples: list[Example]) -> None:
    target = MemoryStore(MODEL)
    target.put_document(examples[0].record, examples[0].parts())
    other = random_document(np.random.default_rng(7), "b.md", chunks=5, version="older")
    target.put_document(other.record, other.parts())
    seen = []
    copy(source, target, on_document=lambda record: seen.append(record.id))
    assert seen == ["b.md", "empty.md", "notes"]
    assert target.documents() == source.documents()


def test_a_chunk_that_was_replaced_is_copied_again(source: QdrantEdgeStore, examples: list[Example]) -> None:
    target = MemoryStore(MODEL)
    copy(source, target)
    new = replace(examples[0].chunks[0], text="Replaced.")
    source.upsert([new], random_output(np.random.default_rng(8), 1))
    copy(source, target)
    assert target.get([new.id]) == [new]
    assert target.documents() == source.documents()


def test_a_document_of_single_chunks_follows_the_source(source: QdrantEdgeStore) -> None:
    target = MemoryStore(MODEL)
    other = Chunk("other", "others", "not of the source", 0, 17)
    target.upsert([other], random_output(np.random.default_rng(9), 1))
    copy(source, target)
    source.delete_chunks(["loose 1"])
    new = [Chunk("loose 0", "notes", "note 0, changed", 0, 15), Chunk("loose 3", "notes", "note 3", 0, 6)]
    source.upsert(new, random_output(np.random.default_rng(8), 2))
    copy(source, target)
    assert target.chunks_of("notes") == source.chunks_of("notes")
    assert target.document("notes") == source.document("notes")
    assert target.chunks_of("others") == [other]


def test_another_model_needs_its_encoder(source: QdrantEdgeStore) -> None:
    encoder = HashEncoder()
    target = MemoryStore(encoder.info)
    with pytest.raises(InputError, match=r"'random'.*give the target's encoder"):
        copy(source, target)
    assert target.documents() == []
    assert copy(source, target, encoder=encoder) == 4
    assert target.count() == 76
    chunk = target.chunks_of("a.md")[7]
    expected = encoder.encode_documents([chunk.encoded_text]).dense
    assert np.allclose(target.representations([chunk.id]).dense, expected)
    assert target.settings == {"note": "kept"}  # weights were learned for the other model


def test_a_fingerprint_tells_models_apart(source: QdrantEdgeStore) -> None:
    with pytest.raises(InputError, match="encoder"):
        copy(source, MemoryStore(replace(MODEL, fingerprint="random-2")))
