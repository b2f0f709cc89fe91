"""Chunks in, hits out, without files: what the frameworks and the server stand on."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from m3rag.collection import CHUNKS_AT_ONCE, Collection
from m3rag.encoder import AsyncEncoding, CachedEncoder, MemoryCache, MicroBatcher
from m3rag.errors import ConfigurationError, IndexMismatchError, IndexMissingError, InputError
from m3rag.knowledge_base import KnowledgeBase
from m3rag.output import M3Output
from m3rag.reranking import ColbertReranker
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

TEXTS = ("Ducks swim on ponds.", "The zebra has stripes.", "Worms are eaten by ducks.")


def chunk(id: str, text: str, **metadata: object) -> Chunk:
    return Chunk(id=id, document_id=f"{id}.md", text=text, start=0, end=len(text), metadata=metadata)


CHUNKS = [chunk(str(n), text, n=n) for n, text in enumerate(TEXTS)]


@pytest.fixture(params=[":memory:", "folder"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    place = request.param if request.param == ":memory:" else tmp_path / "index"
    with Collection(place, encoder=HashEncoder()) as found:
        yield found


def test_chunks_in_hits_out(collection: Collection) -> None:
    assert not collection.exists
    assert collection.get(["0"]) == []
    assert collection.delete(["0"]) == 0
    collection.upsert([])
    assert not collection.exists
    with pytest.raises(IndexMissingError):
        collection.search("ducks")
    collection.upsert(CHUNKS)
    assert collection.exists
    assert collection.search("What has stripes?", k=1)[0].chunk == CHUNKS[1]
    collection.upsert([chunk("1", "The tapir has none.", n=7)])
    assert [c.text for c in collection.get(["1", "nobody", "0"])] == ["The tapir has none.", TEXTS[0]]
    assert [r.id for r in collection.documents()] == ["0.md", "1.md", "2.md"]
    assert collection.delete(["1", "nobody"]) == 1
    assert collection.delete(filter={"n": {"$gte": 1}}) == 1
    assert [hit.chunk.id for hit in collection.search("ducks")] == ["0"]


def test_chunks_that_are_encoded_already(collection: Collection) -> None:
    output = collection.encoder.encode_documents([c.encoded_text for c in CHUNKS])
    with pytest.raises(InputError, match="3 chunks come with 2 representations"):
        collection.upsert(CHUNKS, output[:2])
    assert not collection.exists
    collection.upsert(CHUNKS, output)
    assert collection.search("What has stripes?", k=1)[0].chunk == CHUNKS[1]


@pytest.mark.parametrize("given", [{}, {"chunk_ids": ["0"], "filter": {"n": 0}}])
def test_delete_says_what(collection: Collection, given: dict[str, object]) -> None:
    collection.upsert(CHUNKS)
    with pytest.raises(InputError, match="chunk ids or a filter"):
        collection.delete(**given)  # type: ignore[arg-type]
    assert len(collection.get(["0", "1", "2"])) == 3


def test_many_chunks_are_written_in_parts(collection: Collection) -> None:
    many = [chunk(f"{n:04}", f"word{n} duck") for n in range(CHUNKS_AT_ONCE + 3)]
    collection.upsert(many)
    assert collection.store.count() == len(many)
    assert collection.search(f"word{CHUNKS_AT_ONCE + 1}", mode="lexical")[0].chunk.id == f"{CHUNKS_AT_ONCE + 1:04}"


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (chunk("0", "of the same id"), "two chunks have the id '0'"),
        (chunk("late", "\ud800"), "not valid Unicode"),
        (chunk("late", "x", n=float("nan")), "metadata must be JSON"),
    ],
)
def test_nothing_is_written_of_many_where_a_late_one_is_refused(
    collection: Collection, late: Chunk, message: str
) -> None:
    chunks = [chunk(str(i), "ducks") for i in range(CHUNKS_AT_ONCE)]
    with pytest.raises(InputError, match=message):
        collection.upsert([*chunks, late])
    assert collection.get(["0"]) == []


def test_a_model_without_the_legs_of_the_mode_writes_nothing(tmp_path: Path) -> None:
    class Dense(HashEncoder):
        def __init__(self) -> None:
            super().__init__(vocab_size=1, colbert_dim=1)
            self._info = type(self._info)("dense", "dense-1", 32, 0, 0)

    with Collection(tmp_path / "index", encoder=Dense()) as found:
        with pytest.raises(ConfigurationError, match="dense"):
            found.upsert(CHUNKS)
        assert not found.exists


def test_an_index_in_memory_ends_with_its_owner() -> None:
    first = Collection(":memory:", encoder=HashEncoder())
    second = Collection(":memory:", encoder=HashEncoder())
    first.upsert(CHUNKS)
    assert not second.exists
    with pytest.raises(IndexMismatchError, match="was made"):
        first.place.open(HashEncoder(dense_dim=8).info)
    first.close()
    assert not first.exists
    with pytest.raises(IndexMissingError, match="in memory"):
        first.search("ducks")
    first.upsert(CHUNKS[:1])
    assert [hit.chunk.id for hit in first.search("ducks")] == ["0"]


class Counting(AsyncEncoding, HashEncoder):
    """Counts the texts of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        self.passes.append(len(texts))
        return super().encode_queries(texts)


async def test_concurrent_searches_share_a_pass() -> None:
    encoder = Counting()
    encoder.batcher = MicroBatcher(max_wait_s=2)  # so long the first waits for others
    with Collection(":memory:", encoder=encoder) as found:
        found.upsert(CHUNKS)
        hits = await asyncio.gather(*(found.asearch(text, k=1) for text in TEXTS * 5))
    assert [hit[0].chunk.id for hit in hits] == ["0", "1", "2"] * 5
    assert sum(encoder.passes) == 15
    assert len(encoder.passes) < 15


async def test_asearch_is_search(collection: Collection) -> None:
    collection.upsert(CHUNKS)  # a HashEncoder has no async twin of its own
    for options in ({}, {"mode": "lexical"}, {"k": 1, "filter": {"n": 2}}):
        assert await collection.asearch("Do ducks swim?", **options) == collection.search("Do ducks swim?", **options)
    with pytest.raises(InputError, match="empty"):
        await collection.asearch(" ")


@pytest.mark.parametrize(
    ("setting", "learned", "reranked"),
    [
        (None, None, False),
        ("colbert", None, True),
        (None, {"helps": True, "reranker": "colbert"}, True),
        (None, {"helps": False, "reranker": "colbert"}, False),
        ("none", {"helps": True, "reranker": "colbert"}, False),
        (None, {"helps": True, "reranker": ""}, False),  # learned with a reranker that was given, not named
    ],
)
def test_a_reranker_by_setting_or_as_tune_found(
    tmp_path: Path, setting: str | None, learned: dict[str, object] | None, reranked: bool
) -> None:
    with Collection(tmp_path / "i", encoder=HashEncoder(), settings=Settings(reranker=setting)) as found:
        found.upsert(CHUNKS)
        if learned:
            found.store.update_settings({"rerank": learned})
        scores = [hit.scores.rerank for hit in found.search("Do ducks swim?")]
        assert [score is not None for score in scores] == [reranked] * 3
        given = found.search("Do ducks swim?", reranker=ColbertReranker(found.encoder), rerank_top=3)
        assert all(hit.scores.rerank is not None for hit in given)


def test_a_model_is_loaded_once_whoever_copies_what_holds_it() -> None:
    encoder = CachedEncoder(HashEncoder(), MemoryCache())
    held = {"encoder": encoder, "reranker": ColbertReranker(encoder)}
    copied = copy.deepcopy(held)
    assert copied is not held
    assert copied == held
    assert copy.copy(encoder) is encoder


def test_a_copy_is_the_same_index_and_a_pickle_is_refused(collection: Collection) -> None:
    assert copy.deepcopy({"kept": collection})["kept"] is copy.copy(collection) is collection
    with pytest.raises(InputError, match="cannot be pickled: pickle its place"):
        pickle.dumps(collection)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": "3"}, {"k": 2.5}, {"rerank_top": 1.0}])
def test_counts_are_whole_numbers_and_a_query_is_a_text(collection: Collection, options: dict[str, Any]) -> None:
    collection.upsert(CHUNKS)
    with pytest.raises(InputError, match=rf"{next(iter(options))} must be (a whole number|at least 1), got"):
        collection.search("ducks", **options)
    with pytest.raises(InputError, match="must be a text"):
        collection.search(None)  # type: ignore[arg-type]


def test_one_index_by_either_door(tmp_path: Path) -> None:
    with Collection(tmp_path / "i", encoder=HashEncoder()) as found:
        found.upsert(CHUNKS)
    with KnowledgeBase(tmp_path / "i", encoder=HashEncoder(), settings=Settings(answer_threshold=-1)) as kb:
        answer = kb.ask("What has stripes?")
        assert answer.citations[0].quote == TEXTS[1]
        assert kb.remove(["1.md"]) == 1
