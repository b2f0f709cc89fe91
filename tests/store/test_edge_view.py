"""A small index is searched in memory, and what is found there is what the engine holds, change after change."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qdrant

from m3rag.output import M3Output
from m3rag.store import MemoryStore, QdrantEdgeStore
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.protocol import Filter
from m3rag.store.view import View
from m3rag.testing.data import DENSE_ONLY, MODEL, Example, random_document, random_output, random_query
from m3rag.types import Chunk, Leg


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantEdgeStore]:
    with QdrantEdgeStore.create(tmp_path / "docs.index", MODEL) as store:
        yield store


def in_memory(store: QdrantEdgeStore) -> View | None:
    """What is held once nothing more is being read: neither everything nor what changed meanwhile."""
    for _ in range(2):
        store._in_memory()
        store._view.wait()
    return store._in_memory()


def warm(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    """Search often enough for the index to be held in memory."""
    for _ in range(2):
        store.candidates(random_query(rng, model=store.manifest.model), "dense", k=1)


def put(example: Example, *stores: QdrantEdgeStore | MemoryStore) -> None:
    for store in stores:
        store.put_document(example.record, example.parts())


def same(store: QdrantEdgeStore, oracle: MemoryStore, rng: np.random.Generator) -> None:
    """Both legs, best and all, filtered or not, and the scores of every chunk, of some stranger and of none."""
    legs: tuple[Leg, ...] = ("dense", "lexical")
    filters: list[Filter | None] = [
        None,
        {"lang": ["de", "zh"], "year": {"$gt": 2000}},
        {"document_id": {"$ne": "b.md"}},
    ]
    ids = [chunk.id for chunk in oracle.scan(limit=10_000)[0]]
    query = random_query(rng)
    for leg in legs:
        for k, filter in itertools.product((1, 7, 1000), filters):
            found, right = (one.candidates(query, leg, k=k, filter=filter) for one in (store, oracle))
            assert [id_ for id_, _ in found] == [id_ for id_, _ in right]
            assert [score for _, score in found] == pytest.approx([score for _, score in right], abs=1e-6)
        assert store.score(query, leg, [*ids, "stranger"]) == pytest.approx(oracle.score(query, leg, ids), abs=1e-6)
        assert store.score(query, leg, []) == {}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a few chunks are read while the engine answers, a few at a time."""
    monkeypatch.setattr("m3rag.store.edge_view.AT_ONCE", 4)
    monkeypatch.setattr("m3rag.store.edge_view.PAGE", 2)


@pytest.fixture
def held_up(large: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A reading that stops after its first page, until the event is set."""
    go_on = threading.Event()
    read = EdgeEngine.records

    def slowly(self: EdgeEngine, **how: Any) -> Iterator[list[Any]]:
        pages = read(self, **how)
        yield next(pages)
        assert go_on.wait(60)
        yield from pages

    monkeypatch.setattr(EdgeEngine, "records", slowly)
    yield go_on
    go_on.set()


@pytest.mark.usefixtures("large")
def test_only_the_second_search_reads_the_index_into_memory(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    put(random_document(rng, "a.md", chunks=9), store)
    query = random_query(rng)
    first = store.candidates(query, "dense", k=5)
    assert in_memory(store) is None
    second = store.candidates(query, "dense", k=5)
    view = in_memory(store)
    assert view is not None
    assert len(view) == 9
    third = store.candidates(query, "dense", k=5)
    assert [id_ for id_, _ in first] == [id_ for id_, _ in second] == [id_ for id_, _ in third]


def test_the_engine_answers_while_an_index_is_read(
    store: QdrantEdgeStore, rng: np.random.Generator, held_up: threading.Event
) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    put(random_document(rng, "b.md", chunks=9), store, oracle)
    warm(store, rng)
    same(store, oracle, rng)
    assert store._in_memory() is None
    # What changes meanwhile, seen by the reading or not, is in what is held after it.
    for one in (store, oracle):
        one.delete_documents(["a.md"])
    put(random_document(rng, "b.md", chunks=3, version="v2"), store, oracle)
    put(random_document(rng, "c.md", chunks=40), store, oracle)
    same(store, oracle, rng)
    held_up.set()
    view = in_memory(store)
    assert view is not None
    assert len(view) == 43
    same(store, oracle, rng)


@pytest.mark.usefixtures("large")
def test_many_changes_are_read_while_the_engine_answers(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    warm(store, rng)
    assert in_memory(store) is not None
    for one in (store, oracle):
        one.delete_documents(["a.md"])
    put(random_document(rng, "b.md", chunks=30), store, oracle)
    assert store._in_memory() is None
    same(store, oracle, rng)
    assert in_memory(store) is not None
    same(store, oracle, rng)


@pytest.mark.usefixtures("large")
def test_what_has_changed_is_never_left_out(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    query = random_query(rng)
    put(random_document(rng, "a.md", chunks=3), store, oracle)
    store.candidates(query, "lexical", k=5)  # holds what is few, without a search by dense vectors
    for one in (store, oracle):
        one.delete_documents(["a.md"])
    put(random_document(rng, "b.md", chunks=30), store, oracle)
    for leg in ("lexical", "dense"):
        found, right = (dict(one.candidates(query, leg, k=50)) for one in (store, oracle))
        assert found == pytest.approx(right, abs=1e-6)
    same(store, oracle, rng)


@pytest.mark.usefixtures("large")
def test_large_merges_are_made_while_the_engine_answers(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=5), store, oracle)
    warm(store, rng)
    assert in_memory(store) is not None
    monkeypatch.setattr("m3rag.store.edge_view.MERGED_AT_ONCE", 7)
    put(random_document(rng, "b.md", chunks=3), store, oracle)
    assert store._in_memory() is None
    same(store, oracle, rng)
    assert in_memory(store) is not None
    same(store, oracle, rng)


def test_what_removal_leaves_is_moved_together_while_the_engine_answers(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = MemoryStore(MODEL)
    first, second = (random_document(rng, name, chunks=20) for name in ("a.md", "b.md"))
    put(first, store, oracle)
    put(second, store, oracle)
    warm(store, rng)
    monkeypatch.setattr("m3rag.store.edge_view.MERGED_AT_ONCE", 30)
    for one in (store, oracle):
        one.delete_chunks([chunk.id for chunk in second.chunks[:12]])
    view = store._in_memory()
    assert view is not None
    assert len(view.rows) == 40  # so few leave the others where they are
    for one in (store, oracle):
        one.delete_chunks([chunk.id for chunk in first.chunks[:10]])
    assert store._in_memory() is None
    same(store, oracle, rng)
    view = in_memory(store)
    assert view is not None
    assert len(view.rows) == 18
    same(store, oracle, rng)


def test_what_is_half_gone_is_moved_together_once(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = random_document(rng, "a.md", chunks=40)
    put(document, store)
    warm(store, rng)
    monkeypatch.setattr("m3rag.store.edge_view.MERGED_AT_ONCE", 30)
    held = []
    for chunk in document.chunks[:24]:
        store.delete_chunks([chunk.id])
        held.append(store._in_memory() is not None)
        assert in_memory(store) is not None
    assert held.count(False) == 1


@pytest.mark.usefixtures("large")
def test_without_a_thread_the_engine_answers_on(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        warm(store, rng)
    same(store, oracle, rng)
    assert in_memory(store) is None


def test_closing_does_not_wait_for_a_lock_of_its_own(
    tmp_path: Path, rng: np.random.Generator, held_up: threading.Event
) -> None:
    store = QdrantEdgeStore.create(tmp_path / "docs.index", MODEL)
    put(random_document(rng, "a.md", chunks=900), store)
    warm(store, rng)
    with store._engine.lock:  # as in a signal's handler, in the midst of a search
        held_up.set()
        store.close()


def test_a_reading_that_nobody_waits_for_ends(
    store: QdrantEdgeStore, rng: np.random.Generator, held_up: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    warm(store, rng)
    first = store._view._reader
    assert first is not None
    monkeypatch.setattr("m3rag.store.edge_engine.EXACT_UP_TO", 20)
    put(random_document(rng, "b.md", chunks=40), store, oracle)  # more than is followed
    assert store._in_memory() is None
    assert store._view._reader is not first
    held_up.set()
    first.join(60)
    assert not first.is_alive()
    view = in_memory(store)
    assert view is not None
    assert len(view) == 49
    same(store, oracle, rng)


def test_closing_ends_a_reading(tmp_path: Path, rng: np.random.Generator, held_up: threading.Event) -> None:
    store = QdrantEdgeStore.create(tmp_path / "docs.index", MODEL)
    put(random_document(rng, "a.md", chunks=900), store)
    warm(store, rng)
    reader = store._view._reader
    assert reader is not None
    held_up.set()
    store.close()
    reader.join(60)
    assert not reader.is_alive()
    assert store._view._held is None
    QdrantEdgeStore.open(tmp_path / "docs.index", MODEL).close()


@pytest.mark.usefixtures("large")
def test_where_reading_fails_the_engine_answers_on(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    monkeypatch.setattr("m3rag.store.edge_view.output_of", fails)
    warm(store, rng)
    assert in_memory(store) is None
    assert store._view._reader is None
    same(store, oracle, rng)


def test_a_process_ends_while_it_reads(tmp_path: Path, rng: np.random.Generator) -> None:
    with QdrantEdgeStore.create(tmp_path / "docs.index", MODEL) as store:
        put(random_document(rng, "a.md", chunks=900), store)
    script = """
import sys
import numpy as np
from m3rag.store import QdrantEdgeStore, edge_view
from m3rag.testing.data import MODEL, random_query, random_output
edge_view.AT_ONCE, edge_view.PAGE = 4, 1
edge_view.time.sleep = lambda _, wait=edge_view.time.sleep: wait(0.5)  # so that all takes minutes
store = QdrantEdgeStore.open(sys.argv[1], MODEL)
for _ in range(2):
    store.candidates(random_query(np.random.default_rng(1)), "dense", k=1)
assert store._view._reader.is_alive()
print("reading")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "docs.index")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "reading\n", "")


def test_every_kind_of_change_is_followed(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    warm(store, rng)
    same(store, oracle, rng)
    for name, chunks in (("a.md", 9), ("b.md", 150), ("ü/c 🦆.md", 3), ("empty.md", 0)):
        put(random_document(rng, name, chunks=chunks), store, oracle)
        same(store, oracle, rng)
    put(random_document(rng, "a.md", chunks=4, version="v2"), store, oracle)
    same(store, oracle, rng)
    single = random_document(rng, "single.md", chunks=6)
    others = random_output(rng, 6)
    for one in (store, oracle):
        one.upsert(single.chunks, single.output)
        one.upsert(single.chunks[:3], others[:3])  # other vectors under the same ids
        one.delete_chunks([single.chunks[0].id, "stranger"])
        one.delete({"document_id": "ü/c 🦆.md"})
    same(store, oracle, rng)
    for one in (store, oracle):
        one.delete_documents(["b.md", "single.md"])
    same(store, oracle, rng)
    assert in_memory(store) is not None


def test_random_changes_are_followed(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    warm(store, rng)
    for step in range(40):
        name = f"{rng.integers(6)}.md"
        if rng.random() < 0.3:
            for one in (store, oracle):
                one.delete_documents([name])
        else:
            put(random_document(rng, name, chunks=int(rng.integers(0, 40)), version=f"v{step}"), store, oracle)
        if rng.random() < 0.5:
            same(store, oracle, rng)
    same(store, oracle, rng)


def test_half_a_document_is_not_found(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=8), store, oracle)
    warm(store, rng)
    new = random_document(rng, "a.md", chunks=8, version="v2")

    def searching() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        for part in new.parts(3):
            yield part
            same(store, oracle, rng)

    store.put_document(new.record, searching())
    put(new, oracle)
    same(store, oracle, rng)


def test_an_index_that_would_take_too_much_memory_is_left_to_the_engine(
    store: QdrantEdgeStore, rng: np.random.Generator
) -> None:
    store._view._up_to = 20
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=15), store, oracle)
    warm(store, rng)
    assert in_memory(store) is not None
    put(random_document(rng, "b.md", chunks=15), store, oracle)
    same(store, oracle, rng)
    assert in_memory(store) is None
    assert store._engine.changed is None
    for one in (store, oracle):
        one.delete_documents(["a.md"])
    same(store, oracle, rng)
    assert in_memory(store) is not None


def test_more_changes_than_a_view_can_hold_are_read_anew(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.store.edge_engine.EXACT_UP_TO", 20)
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=15), store, oracle)
    warm(store, rng)
    put(random_document(rng, "b.md", chunks=30), store, oracle)
    assert store._engine.changed is None
    same(store, oracle, rng)
    assert in_memory(store) is not None


def test_a_reading_that_fails_leaves_nothing_half_read(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=15), store, oracle)
    warm(store, rng)
    put(random_document(rng, "b.md", chunks=3), store, oracle)

    def fails(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EdgeEngine, "retrieve", fails)
        with pytest.raises(KeyboardInterrupt):
            in_memory(store)
    same(store, oracle, rng)
    assert in_memory(store) is not None


def test_what_damage_left_without_payload_is_no_chunk(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    oracle = MemoryStore(MODEL)
    put(random_document(rng, "a.md", chunks=15), store, oracle)
    left = random_output(rng, 1)
    store._engine.upsert([qdrant.Point(uuid.uuid4(), {"dense": left.dense[0].tolist()}, {})])
    same(store, oracle, rng)
    warm(store, rng)
    assert in_memory(store) is not None
    same(store, oracle, rng)
    query = random_query(rng)
    assert (
        dict(store.candidates(query, "colbert", k=30)).keys() == dict(oracle.candidates(query, "colbert", k=30)).keys()
    )


def test_a_model_of_one_leg(tmp_path: Path, rng: np.random.Generator) -> None:
    oracle = MemoryStore(DENSE_ONLY)
    with QdrantEdgeStore.create(tmp_path / "docs.index", DENSE_ONLY) as store:
        put(random_document(rng, "a.md", chunks=15, model=DENSE_ONLY), store, oracle)
        warm(store, rng)
        query = random_query(rng, model=DENSE_ONLY)
        found, right = (one.candidates(query, "dense", k=9) for one in (store, oracle))
        assert in_memory(store) is not None
        assert [id_ for id_, _ in found] == [id_ for id_, _ in right]


def test_numbers_are_found_to_their_last_bit(store: QdrantEdgeStore, rng: np.random.Generator) -> None:
    # Of which the engine gives some back with another.
    held = [float(number) for number in rng.random(300)]
    example = random_document(rng, "a.md", chunks=len(held))
    chunks = [replace(chunk, metadata={"x": x}) for chunk, x in zip(example.chunks, held, strict=True)]
    store.upsert(chunks, example.output)
    query = random_query(rng)
    for chunk, x in zip(chunks, held, strict=True):
        (hit,) = store.candidates(query, "dense", k=2, filter={"x": {"$gte": x, "$lte": x}})
        assert hit[0] == chunk.id


def test_where_filters_would_take_too_much_memory_the_engine_answers(
    store: QdrantEdgeStore, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = MemoryStore(MODEL)
    monkeypatch.setattr("m3rag.store.edge_view.FILTER_BYTES", 10_000)
    put(random_document(rng, "a.md", chunks=9), store, oracle)
    assert in_memory(store) is not None
    same(store, oracle, rng)
    put(random_document(rng, "b.md", chunks=30), store, oracle)
    assert in_memory(store) is None
    same(store, oracle, rng)
    put(random_document(rng, "c.md", chunks=3), store, oracle)
    assert in_memory(store) is None
    same(store, oracle, rng)
