"""`langchain_core.indexing.index` and its record managers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from m3rag.collection import Collection
from m3rag.langchain import M3DocumentIndex, M3VectorStore
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

pytestmark = pytest.mark.filterwarnings("ignore:.*is in beta")

Destination = M3VectorStore | M3DocumentIndex


def pages(source: str, *texts: str) -> list[Document]:
    return [Document(page_content=text, metadata={"source": source}) for text in texts]


FIRST = [*pages("a.txt", "Ducks swim.", "Ducks fly."), *pages("b.txt", "Trains run.")]
CHANGED = [*pages("a.txt", "Ducks swim.", "Ducks dive."), *pages("b.txt", "Trains run.")]


class Counting(HashEncoder):
    """Counts the passages it encodes."""

    encoded = 0

    def encode_documents(self, texts: Any) -> Any:
        self.encoded += len(texts)
        return super().encode_documents(texts)


@pytest.fixture(params=["memory", "edge"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    place = ":memory:" if request.param == "memory" else tmp_path / "index"
    with Collection(place, encoder=Counting(), settings=Settings()) as collection:
        yield collection


@pytest.fixture(params=[M3VectorStore, M3DocumentIndex])
def destination(request: pytest.FixtureRequest, collection: Collection) -> Destination:
    made: Callable[..., Destination] = request.param
    return made(collection=collection)


def texts_in(collection: Collection) -> list[str]:
    return sorted(chunk.text for chunk in collection.store.scan()[0])


@pytest.fixture
def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager(namespace="test")
    manager.create_schema()
    return manager


OPTIONS: dict[str, Any] = {"source_id_key": "source", "key_encoder": "sha256", "batch_size": 2}


@pytest.mark.parametrize("cleanup", ["full", "incremental", "scoped_full"])
def test_what_changed_is_added_and_what_is_gone_is_removed(
    collection: Collection, destination: Destination, records: InMemoryRecordManager, cleanup: Any
) -> None:
    told = index(FIRST, records, destination, cleanup=cleanup, **OPTIONS)
    assert told == {"num_added": 3, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    encoder = collection.encoder
    assert isinstance(encoder, Counting)
    before = encoder.encoded
    told = index(FIRST, records, destination, cleanup=cleanup, **OPTIONS)
    assert told == {"num_added": 0, "num_updated": 0, "num_skipped": 3, "num_deleted": 0}
    assert encoder.encoded == before
    told = index(CHANGED, records, destination, cleanup=cleanup, **OPTIONS)
    assert (told["num_added"], told["num_deleted"]) == (1, 1)
    assert encoder.encoded == before + 1
    assert texts_in(collection) == ["Ducks dive.", "Ducks swim.", "Trains run."]
    assert [(record.id, record.chunks) for record in collection.documents()] == [("a.txt", 2), ("b.txt", 1)]


async def test_asynchronously_and_an_empty_full_run_empties_the_store(
    collection: Collection, destination: Destination, records: InMemoryRecordManager
) -> None:
    told = await aindex(FIRST, records, destination, cleanup="full", **OPTIONS)
    assert told["num_added"] == 3
    told = await aindex([], records, destination, cleanup="full", **OPTIONS)
    assert told["num_deleted"] == 3
    assert texts_in(collection) == []


def test_an_update_is_forced(collection: Collection, destination: Destination, records: InMemoryRecordManager) -> None:
    index(FIRST, records, destination, cleanup=None, **OPTIONS)
    told = index(FIRST, records, destination, cleanup=None, force_update=True, **OPTIONS)
    assert told["num_updated"] == 3
    assert len(texts_in(collection)) == 3
