"""A collection that others filled is searched with our three legs, followed, and never changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="chromadb is not installed: pip install 'm3rag[chroma]'")

import chromadb
from chromadb.config import Settings

from m3rag.errors import IndexMismatchError, InputError
from m3rag.output import M3Output
from m3rag.store.chroma import ChromaStore
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import LEGS

TEXTS = [f"passage {i} about {topic}" for i, topic in enumerate(["swimming", "游泳", "Schwimmen", "cooking"] * 5)]
SOURCES = [f"{i // 4}.md" for i in range(len(TEXTS))]


class Counting(HashEncoder):
    """An encoder that says what it was asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        self.encoded += texts
        return super().encode_documents(texts)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with chromadb.PersistentClient(tmp_path / "theirs", settings=Settings(anonymized_telemetry=False)) as client:
        collection = client.create_collection("theirs", embedding_function=None)
        collection.add(
            ids=[f"id {i}" for i in range(len(TEXTS))],
            embeddings=np.random.default_rng(1).standard_normal((len(TEXTS), 7)).astype(np.float32),
            documents=TEXTS,
            metadatas=[{"source": source, "n": i} for i, source in enumerate(SOURCES)],
        )
        yield client


def everything(client: Any) -> Any:
    found = client.get_collection("theirs", embedding_function=None).get(
        include=["documents", "metadatas", "embeddings"]
    )
    return found["ids"], found["documents"], found["metadatas"], np.asarray(found["embeddings"]).tolist()


def test_every_leg_finds_what_others_wrote(client: Any, tmp_path: Path) -> None:
    before = everything(client)
    encoder = Counting()
    with ChromaStore.adopt(client, "theirs", encoder=encoder, side=tmp_path, document_key="source") as store:
        assert store.adopted
        assert [record.id for record in store.documents()] == sorted(set(SOURCES))
        assert [chunk.text for chunk in store.chunks_of("1.md")] == TEXTS[4:8]
        assert store.count(filter={"n": {"$gte": 15}}) == 5
        output = encoder.encode_documents(TEXTS)
        oracle = MemoryStore(encoder.info)
        oracle.upsert([store.get([f"id {i}"])[0] for i in range(len(TEXTS))], output)
        query = encoder.encode_queries(["游泳"])
        for leg in LEGS:
            found, expected = (target.candidates(query, leg, k=8) for target in (store, oracle))
            assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
            assert dict(found) == pytest.approx(dict(expected), abs=2e-3)
        assert np.array_equal(store.representations(["id 3"]).dense, output.dense[3:4])
    assert everything(client) == before
    with ChromaStore.open(client, encoder.info, collection="theirs", side=tmp_path) as store:
        assert (store.adopted, store.count()) == (True, len(TEXTS))


def test_an_adopted_collection_is_only_read(client: Any, tmp_path: Path) -> None:
    before = everything(client)
    with ChromaStore.adopt(client, "theirs", encoder=HashEncoder(), side=tmp_path) as store:
        assert len(store.documents()) == len(TEXTS)
        chunk = store.get(["id 0"])
        writes: list[Any] = [
            lambda: store.upsert(chunk, store.representations(["id 0"])),
            lambda: store.put_document(store.documents()[0], [(chunk, store.representations(["id 0"]))]),
            lambda: store.delete_chunks(["id 0"]),
            lambda: store.delete_documents(["id 0"]),
            lambda: store.delete({"n": 1}),
        ]
        for write in writes:
            with pytest.raises(InputError, match=r"only read.*adopt it again"):
                write()
        store.update_settings({"weights": [1, 2]})
        assert store.settings == {"weights": [1, 2]}
    assert everything(client) == before


def test_numbers_that_cannot_be_compared_are_not_adopted(client: Any, tmp_path: Path) -> None:
    class Damaged(HashEncoder):
        def encode_documents(self, texts: Sequence[str]) -> M3Output:
            output = super().encode_documents(texts)
            output.dense[1, 0] = np.nan
            return output

    with pytest.raises(InputError, match="chunk 'id 1': the dense vectors hold a NaN"):
        ChromaStore.adopt(client, "theirs", encoder=Damaged(), side=tmp_path)


def test_adopting_again_encodes_only_what_changed(client: Any, tmp_path: Path) -> None:
    collection = client.get_collection("theirs", embedding_function=None)
    ChromaStore.adopt(client, "theirs", encoder=HashEncoder(), side=tmp_path).close()
    collection.delete(ids=["id 2"])
    collection.update(ids=["id 3"], documents=["other text"], embeddings=np.ones((1, 7), np.float32))
    collection.update(ids=["id 4"], metadatas=[{"n": 400}])
    collection.add(ids=["new"], documents=["new text"], embeddings=np.ones((1, 7), np.float32))
    encoder = Counting()
    with ChromaStore.adopt(client, "theirs", encoder=encoder, side=tmp_path) as store:
        assert sorted(encoder.encoded) == sorted(["other text", TEXTS[4], "new text"])
        assert store.count() == len(TEXTS)
        assert store.get(["id 2"]) == []
        assert store.document("id 2") is None
        texts = [chunk.text for chunk in store.get(["id 3", "id 4", "new"])]
        assert texts == ["other text", TEXTS[4], "new text"]
        assert store.count(filter={"n": 400}) == 1


def test_an_adoption_that_was_interrupted_goes_on(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Counting):
        def encode_documents(self, texts: Sequence[str]) -> M3Output:
            if self.encoded:
                raise KeyboardInterrupt
            return super().encode_documents(texts)

    monkeypatch.setattr("m3rag.store.chroma_adopt.PAGE", 8)
    with pytest.raises(KeyboardInterrupt):
        ChromaStore.adopt(client, "theirs", encoder=Dying(), side=tmp_path)
    encoder = Counting()
    with ChromaStore.adopt(client, "theirs", encoder=encoder, side=tmp_path) as store:
        assert store.count() == len(TEXTS)
    assert len(encoder.encoded) == len(TEXTS) - 8


def test_items_without_a_document_are_told(client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collection = client.get_collection("theirs", embedding_function=None)
    collection.add(ids=["x", "y"], embeddings=np.ones((2, 7), np.float32))
    with (
        caplog.at_level(logging.WARNING),
        ChromaStore.adopt(client, "theirs", encoder=HashEncoder(), side=tmp_path) as store,
    ):
        assert store.count() == len(TEXTS)
    assert "2 items of the Chroma collection" in caplog.text


def test_what_cannot_be_adopted(client: Any, tmp_path: Path) -> None:
    encoder = HashEncoder()
    with pytest.raises(InputError, match="no collection 'absent'"):
        ChromaStore.adopt(client, "absent", encoder=encoder, side=tmp_path)
    ChromaStore.create(client, encoder.info, side=tmp_path, collection="ours").close()
    with pytest.raises(InputError, match="was made by m3rag"):
        ChromaStore.adopt(client, "ours", encoder=encoder, side=tmp_path)
    ChromaStore.adopt(client, "theirs", encoder=encoder, side=tmp_path, document_key="source").close()
    with pytest.raises(InputError, match="the same document_key"):
        ChromaStore.adopt(client, "theirs", encoder=encoder, side=tmp_path)
    with pytest.raises(IndexMismatchError, match="was made by model"):
        ChromaStore.adopt(client, "theirs", encoder=HashEncoder(dense_dim=16), side=tmp_path, document_key="source")
