"""The leg against brute force over what the store holds, after every kind of change."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.bm25 import Backend, BM25Leg, Method, word_tokenizer
from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.store import DocumentRecord, MemoryStore, QdrantEdgeStore, Store
from m3rag.store.filters import matches
from m3rag.store.protocol import Filter
from m3rag.testing.data import MODEL, random_document, random_output
from m3rag.types import Chunk

WORDS = ["duck", "swan", "goose", "pond", "鸭子", "天鹅", "水", "नदी", "Straße", "the"]
FILTERS: list[Filter] = [
    {},
    {"lang": "de"},
    {"lang": ["de", "zh"], "year": {"$gte": 2001}},
    {"$or": [{"flag": True}, {"document_id": "a"}]},
    {"$not": {"tags": "common"}},
    {"missing": {"$exists": False}},
]


def outputs(n: int) -> M3Output:
    return random_output(np.random.default_rng(0), n)


def made_up(id_: str, text: str, document: str = "d", **metadata: Any) -> Chunk:
    return Chunk(id_, document, text, 0, len(text), metadata=metadata)


def random_chunks(rng: np.random.Generator, n: int) -> list[Chunk]:
    chunks = []
    for i in range(n):
        text = " ".join(rng.choice(WORDS, rng.integers(0, 9)))
        metadata = {"lang": ("de", "en", "zh")[i % 3], "year": 2000 + i % 4, "flag": i % 2 == 0, "tags": ["x", i % 5]}
        headings = ("Lake", "Birds") if i % 4 == 0 else ()
        chunks.append(Chunk(f"c{i}", "abcd"[i % 4], text, 0, len(text), headings=headings, metadata=metadata))
    return chunks


def upserted(store: Store, *chunks: Chunk) -> Store:
    store.upsert(chunks, outputs(len(chunks)))
    return store


def brute_force(query: str, chunks: Sequence[Chunk], filter: Filter | None = None) -> list[tuple[str, float]]:
    """Lucene's BM25 (k1 1.5, b .75) over all chunks, then the filter, then the order."""
    tokenize = word_tokenizer()
    texts = {chunk.id: tokenize(chunk.encoded_text) for chunk in chunks}
    mean = sum(map(len, texts.values())) / max(len(texts), 1)
    found = []
    for chunk in chunks:
        text = texts[chunk.id]
        if not set(text) & set(tokenize(query)) or not matches(chunk, filter):
            continue
        score = 0.0
        for token in tokenize(query):
            n = sum(token in other for other in texts.values())
            f = text.count(token)
            idf = np.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            score += idf * f / (f + 1.5 * (0.25 + 0.75 * len(text) / mean))
        found.append((chunk.id, score))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def assert_equal(leg: BM25Leg, store: Store, *, filters: Sequence[Filter] = FILTERS) -> None:
    """The leg finds in the store what brute force does."""
    chunks = store.scan(limit=10_000)[0]
    assert len(leg) == len(chunks)
    for query in ("duck", "the swan, the pond", "鸭子在水", "STRASSE नदी Lake", "penguin", "!"):
        for filter in filters:
            expected = brute_force(query, chunks, filter)
            found = leg.candidates(query, k=max(len(chunks), 1), filter=filter)
            assert [id_ for id_, _ in sorted(found)] == [id_ for id_, _ in sorted(expected)]
            assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
            assert dict(found) == pytest.approx(dict(expected), rel=1e-5)
        scores = leg.score(query, [*(chunk.id for chunk in chunks), "unknown"])
        assert scores == pytest.approx({chunk.id: 0.0 for chunk in chunks} | dict(brute_force(query, chunks)), rel=1e-5)


@pytest.fixture(params=["memory", "edge"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MemoryStore(MODEL) if request.param == "memory" else QdrantEdgeStore.create(tmp_path / "index", MODEL)
    yield made
    made.close()


@pytest.mark.parametrize("in_file", [False, True])
def test_it_follows_every_change_of_a_store(store: Store, in_file: bool, tmp_path: Path) -> None:
    def reopened() -> BM25Leg:
        return BM25Leg(tmp_path / "bm25.sqlite3") if in_file else leg

    chunks = random_chunks(np.random.default_rng(1), 60)
    leg = reopened() if in_file else BM25Leg()
    whole = DocumentRecord(id="whole", title="", version="v1", chunks=2)
    parts = [([made_up("w0", "duck duck", "whole"), made_up("w1", "swan", "whole", lang="de")], outputs(2))]
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: upserted(store, *chunks[:40]),
        lambda: upserted(store, *chunks[40:]),
        lambda: store.put_document(whole, parts),
        lambda: upserted(store, made_up("w0", "goose pond", "whole")),  # neither version nor count change
        lambda: upserted(store, made_up("w0", "goose pond", "whole", lang="de")),  # the metadata alone
        lambda: upserted(store, made_up("c3", "swan swan", "whole")),  # to another document
        lambda: store.delete_chunks(["c5", "c6", "w1"]),
        lambda: store.delete({"lang": "zh"}),
        lambda: store.delete_documents(["a"]),
        lambda: store.delete_documents([record.id for record in store.documents()]),
        lambda: upserted(store, *chunks[:5]),
    ]
    for change in changes:
        change()
        leg.sync(store)
        assert_equal(leg, store)
        leg = reopened()
        assert_equal(leg, store, filters=FILTERS[:2])


@pytest.mark.parametrize("filter", FILTERS)
def test_k_is_of_those_that_pass(filter: Filter) -> None:
    store = upserted(MemoryStore(MODEL), *random_chunks(np.random.default_rng(2), 200))
    leg = BM25Leg()
    leg.sync(store)
    everything = leg.candidates("the duck 水", k=1000, filter=filter)
    for k in (1, 2, 7, len(everything), 1000):
        assert leg.candidates("the duck 水", k=k, filter=filter) == everything[:k]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.text("xyz ", max_size=6)), max_size=12))
def test_any_sequence_of_upserts_and_deletes(steps: list[tuple[str, str]]) -> None:
    store, leg = MemoryStore(MODEL), BM25Leg()
    for id_, text in steps:
        if "z" in text:
            store.delete_chunks([id_])
        else:
            upserted(store, made_up(id_, text))
        leg.sync(store)
    leg.sync(store)
    chunks = store.scan(limit=100)[0]
    assert dict(leg.candidates("x y", k=10)) == pytest.approx(dict(brute_force("x y", chunks)), rel=1e-5)


@pytest.mark.parametrize("backend", ["bm25s", "rank-bm25"])
@pytest.mark.parametrize("method", ["lucene", "okapi"])
def test_texts_without_tokens(backend: Backend, method: Method) -> None:
    leg = BM25Leg(backend=backend, method=method, b=1.0)
    store = upserted(MemoryStore(MODEL), made_up("a", ""), made_up("b", "?!"))
    leg.sync(store)
    assert leg.candidates("duck", k=5) == []
    assert leg.score("duck", ["a", "b"]) == {"a": 0.0, "b": 0.0}
    leg.sync(upserted(store, made_up("c", "duck")))
    assert [id_ for id_, _ in leg.candidates("duck", k=5)] == ["c"]
    assert leg.candidates("", k=5) == leg.candidates("swan", k=5) == []


@pytest.mark.parametrize("method", ["lucene", "okapi"])
def test_the_backends_agree(method: Method) -> None:
    store = upserted(MemoryStore(MODEL), *random_chunks(np.random.default_rng(3), 80))
    legs = [BM25Leg(backend=backend, method=method, k1=0.9, b=0.4) for backend in ("bm25s", "rank-bm25")]
    for leg in legs:
        leg.sync(store)
    for query in ("duck pond", "the the 鸭子"):
        a, b = (dict(leg.candidates(query, k=100)) for leg in legs)
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


def test_only_new_texts_are_tokenised() -> None:
    seen: list[str] = []

    def tokenize(text: str) -> list[str]:
        seen.append(text)
        return text.split()

    store = upserted(MemoryStore(MODEL), made_up("a", "one"), made_up("b", "two"))
    leg = BM25Leg(tokenize=tokenize)
    leg.sync(store)
    assert sorted(seen) == ["one", "two"]
    seen.clear()
    upserted(store, made_up("a", "one", lang="de"), made_up("c", "two", "e"), made_up("d", "three"))
    leg.sync(store)
    assert seen == ["three"]


class CountingStore(MemoryStore):
    """Says when it changed, and counts how often it is read."""

    revision = "r0"
    scans = 0

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        super().upsert(chunks, output)
        self.revision = uuid.uuid4().hex

    def scan(self, **options: Any) -> tuple[list[Chunk], str | None]:
        self.scans += 1
        return super().scan(**options)


def test_a_store_that_tells_its_revision_is_read_only_when_it_changed(tmp_path: Path) -> None:
    store = CountingStore(MODEL)
    upserted(store, made_up("a", "duck"))
    leg = BM25Leg(tmp_path / "bm25")
    for _ in range(3):
        leg.sync(store)
    assert store.scans == 1
    leg = BM25Leg(tmp_path / "bm25")
    leg.sync(store)
    assert store.scans == 1
    leg.sync(upserted(store, made_up("b", "duck")))
    assert store.scans == 2
    assert [id_ for id_, _ in leg.candidates("duck", k=5)] == ["a", "b"]


def test_pages_of_a_store_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3rag.bm25.leg.PAGE", 7)
    store = upserted(MemoryStore(MODEL), *random_chunks(np.random.default_rng(4), 50))
    leg = BM25Leg()
    leg.sync(store)
    assert_equal(leg, store)


def test_documents_of_odd_ids_and_large_metadata(store: Store, tmp_path: Path) -> None:
    example = random_document(
        np.random.default_rng(5), "日本/\u0001'%.md", chunks=9, metadata={"x": "🦆" * 100_000 + "\ud800"}
    )
    store.put_document(example.record, example.parts())
    leg = BM25Leg(tmp_path / "bm25")
    leg.sync(store)
    leg = BM25Leg(tmp_path / "bm25")
    found = leg.candidates("héllo", k=20, filter={"document_id": example.record.id, "draft": True})
    assert {id_ for id_, _ in found} == {chunk.id for chunk in example.chunks if chunk.metadata["draft"]}


def test_a_store_that_fails_leaves_the_leg_as_it_was() -> None:
    class FailingStore(MemoryStore):
        def scan(self, **options: Any) -> tuple[list[Chunk], str | None]:
            raise StoreError("the disk is gone")

    leg = BM25Leg()
    leg.sync(upserted(MemoryStore(MODEL), made_up("a", "duck")))
    with pytest.raises(StoreError, match="the disk is gone"):
        leg.sync(FailingStore(MODEL))
    assert [id_ for id_, _ in leg.candidates("duck", k=5)] == ["a"]


def test_searches_go_on_while_it_follows() -> None:
    store, leg = MemoryStore(MODEL), BM25Leg()
    leg.sync(upserted(store, made_up("c", "duck 0")))
    wrong: list[object] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = [id_ for id_, _ in leg.candidates("duck", k=50)]
            if found != sorted(found) or "c" not in found:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(30):
            upserted(store, made_up(f"c{i:02}", f"duck {i}"))
            leg.sync(store)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert len(leg) == 31


def test_use_is_explained() -> None:
    leg = BM25Leg()
    for search in (lambda: leg.candidates("duck", k=1), lambda: leg.score("duck", ["a"])):
        with pytest.raises(InputError, match=r"call sync\(store\) before searching"):
            search()
    leg.sync(MemoryStore(MODEL))
    assert leg.candidates("duck", k=1) == []
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        leg.candidates("duck", k=0)
    for k in ("3", 2.5):
        with pytest.raises(InputError, match="k must be a whole number"):
            leg.candidates("duck", k=k)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown operator"):
        leg.candidates("duck", k=1, filter={"$nor": []})
