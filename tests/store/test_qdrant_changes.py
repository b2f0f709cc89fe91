"""What several clients of one Qdrant collection see, and what a client that dies leaves behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

import m3rag.store.qdrant_changes as module
from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.store import MemoryStore, Store
from m3rag.store.qdrant import QdrantStore
from m3rag.store.qdrant_connection import Connection
from m3rag.testing.data import MODEL, Example, random_document, random_output, random_query
from m3rag.types import LEGS, Chunk


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def made(client: QdrantClient) -> QdrantStore:
    return QdrantStore.open_or_create(None, MODEL, client=client)


def points(client: QdrantClient) -> int:
    return client.count("m3rag").count


def points_of(store: Store) -> int:
    """How many points there are when nothing is left over: manifest, settings, epoch, records and chunks."""
    return 3 + len(store.documents()) + store.count()


# A death at any moment


@contextmanager
def death(client: QdrantClient, after: int) -> Iterator[list[int]]:
    """Let a number of operations through, then none, and no other call either, as when the connection is gone."""
    real, left = client.batch_update_points, [after]
    others = {name: getattr(client, name) for name in ("retrieve", "scroll", "count", "facet", "query_points")}

    def gone() -> ResponseHandlingException:
        return ResponseHandlingException(httpx.ConnectError("connection refused"))

    def write(collection: str, *, update_operations: list[Any], **options: Any) -> Any:
        done = update_operations[: left[0]]
        left[0] -= len(update_operations)
        result = real(collection, update_operations=done, **options) if done else []
        if left[0] < 0:
            raise gone()
        return result

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **options: Any) -> Any:
            if left[0] < 0:
                raise gone()
            return call(*args, **options)

        return guard

    for name, call in {**{name: guarded(call) for name, call in others.items()}, "batch_update_points": write}.items():
        setattr(client, name, call)
    try:
        yield left
    finally:
        for name in [*others, "batch_update_points"]:
            delattr(client, name)


def changes(rng: np.random.Generator) -> dict[str, Callable[[Store], object]]:
    """The changes that are interrupted, each of which does the same to any store."""
    v2 = random_document(rng, "b.md", chunks=5, version="v2")
    new = random_document(rng, "new.md", chunks=4)
    again = random_document(np.random.default_rng(3), "a.md", chunks=8)
    loose = tuple(replace(chunk, id=f"loose {i}", document_id="x") for i, chunk in enumerate(new.chunks[:1]))
    moved = (replace(again.chunks[2], document_id="b.md", text="moved"),)
    return {
        "put": lambda store: store.put_document(v2.record, v2.parts()),
        "new": lambda store: store.put_document(new.record, new.parts()),
        "again": lambda store: store.put_document(again.record, again.parts()),
        "delete": lambda store: store.delete_documents(["a.md", "b.md"]),
        "upsert": lambda store: store.upsert(loose, new.output[:1]),
        "move": lambda store: store.upsert(moved, new.output[:1]),
        "delete chunk": lambda store: store.delete_chunks([again.chunks[0].id]),
    }


def filled(store: Store) -> Store:
    rng = np.random.default_rng(3)
    for name in ("a.md", "b.md", "c.md"):
        example = random_document(rng, name, chunks=8)
        store.put_document(example.record, example.parts())
    return store


def contents(store: Store) -> dict[str, tuple[str, list[Chunk]]]:
    return {record.id: (record.version, store.chunks_of(record.id)) for record in store.documents()}


@pytest.mark.parametrize("kind", ["put", "new", "again", "delete", "upsert", "move", "delete chunk"])
def test_a_death_at_any_moment_leaves_the_old_or_the_new(client: QdrantClient, rng: Any, kind: str) -> None:
    change = changes(rng)[kind]
    before, after = filled(MemoryStore(MODEL)), filled(MemoryStore(MODEL))
    change(after)
    old, new = contents(before), contents(after)
    filled(made(client))
    moments, outcomes = 0, []
    while True:
        store = made(client)
        with death(client, moments) as left:
            try:
                change(store)
            except StoreError as error:
                assert "connection refused" in str(error)  # noqa: PT017 - it may not raise, too
        whole = left[0] >= 0
        # Whoever opens it sees one or the other, at once.
        found = contents(made(client))
        assert found in [old, new, *_partly(old, kind)]
        store = made(client)
        assert [record.chunks for record in store.documents()] == [
            len(chunks) for _, (_, chunks) in sorted(found.items())
        ]
        outcomes.append(found == new)
        # And with what is left over cleared away, so does whoever looks at the engine itself.
        again = made(client)
        assert (again.repair(older_than=0) > 0) <= (not whole)
        assert contents(again) == found
        assert points(client) == points_of(again)
        for record in again.documents():
            assert record.chunks == len(again.chunks_of(record.id))
        change(again)
        assert contents(again) == new
        assert points(client) == points_of(again)
        again.repair(older_than=0)
        client.delete_collection("m3rag")
        filled(made(client))
        moments += 1
        if whole:
            break
    assert moments > 5
    assert outcomes[-1]
    assert kind == "again" or not outcomes[0]


def _partly(old: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    # Two documents are two changes.
    gone = ("a.md", "b.md") if kind == "delete" else ()
    return [{name: one for name, one in old.items() if name != without} for without in gone]


def test_a_writer_alive_is_not_cleared_away(client: QdrantClient, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=6)

    def watched() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        for part in example.parts():
            yield part
            other = made(client)  # which clears away what is older than the lease
            assert other.count() == 0

    made(client).put_document(example.record, watched())
    assert made(client).chunks_of("a.md") == list(example.chunks)


def test_a_writer_taken_for_dead_fails_and_leaves_the_older_version(client: QdrantClient, rng: Any) -> None:
    old, new = random_document(rng, "a.md", chunks=6), random_document(rng, "a.md", chunks=6, version="v2")
    store = made(client)
    store.put_document(old.record, old.parts())

    def watched() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield new.parts()[0]
        assert made(client).repair(older_than=0) == 1
        yield new.parts()[1]

    with pytest.raises(StoreError, match=r"6 chunks were written and 3 are there.*write it again"):
        store.put_document(new.record, watched())
    assert store.chunks_of("a.md") == list(old.chunks)
    assert points(client) == points_of(store)


def test_a_pause_that_outlasts_the_lease_is_refused(
    client: QdrantClient, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = random_document(rng, "a.md", chunks=6)

    def slow() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield example.parts()[0]
        monkeypatch.setattr(module, "LEASE", -1.0)
        yield example.parts()[1]

    store = made(client)
    with pytest.raises(StoreError, match="writing paused"):
        store.put_document(example.record, slow())
    assert points(client) == points_of(store) == 3


# Several clients


def test_other_clients_see_the_old_version_until_the_commit(client: QdrantClient, rng: np.random.Generator) -> None:
    old, new = random_document(rng, "a.md", chunks=7), random_document(rng, "a.md", chunks=9, version="v2")
    writer, reader = made(client), made(client)
    writer.put_document(old.record, old.parts())
    oracle, query = MemoryStore(MODEL), random_query(rng)
    oracle.put_document(old.record, old.parts())

    def watched() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        for part in new.parts():
            yield part
            for other in (reader, made(client), writer):
                assert other.chunks_of("a.md") == list(old.chunks)
                assert other.count() == 7
                assert other.get([new.chunks[0].id]) == []
                for leg in LEGS:
                    expected = [id_ for id_, _ in oracle.candidates(query, leg, k=99)]
                    assert [id_ for id_, _ in other.candidates(query, leg, k=99)] == expected

    writer.put_document(new.record, watched())
    assert reader.chunks_of("a.md") == list(new.chunks)
    assert reader.get([old.chunks[0].id]) == []


@pytest.mark.parametrize("inner", ["put", "same", "fail", "upsert", "delete", "delete chunk"])
@pytest.mark.parametrize("outer", ["v1", "v2"])
def test_the_last_of_two_writers_wins_whole(client: QdrantClient, rng: Any, inner: str, outer: str) -> None:
    """One writes a document while the other is in the middle of doing so."""
    v1, v2, v3 = (random_document(np.random.default_rng(1), "a.md", chunks=6, version=v) for v in ("v1", "v2", "v3"))
    store, other = made(client), made(client)
    store.put_document(v1.record, v1.parts())
    mine = v1 if outer == "v1" else v2
    loose = Chunk("loose", "a.md", "loose", 0, 5)

    def interrupt() -> None:
        if inner in ("put", "same"):
            example = v3 if inner == "put" else mine
            other.put_document(example.record, example.parts())
        elif inner == "fail":
            with pytest.raises(InputError, match="6 chunks"):
                other.put_document(v3.record, v3.parts()[:1])
        elif inner == "upsert":
            other.upsert([loose], random_output(rng, 1))
        elif inner == "delete":
            assert other.delete_documents(["a.md"]) == 1
        else:
            assert other.delete_chunks([v1.chunks[5].id]) == 1

    def parts() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield mine.parts()[0]
        interrupt()
        yield mine.parts()[1]

    store.put_document(mine.record, parts())
    for one in (store, other, made(client)):
        assert one.documents() == [mine.record]
        assert one.chunks_of("a.md") == list(mine.chunks)
    assert points(client) == points_of(store)


# Every order of calls


class Turns:
    """Lets threads make their calls of the engine one at a time, in an order drawn at random."""

    def __init__(self, seed: int, threads: int) -> None:
        self.random = random.Random(seed)
        self.condition = threading.Condition()
        self.waiting: set[int] = set()
        self.running = threads
        self.turn: int | None = None

    def take(self) -> None:
        me = threading.get_ident()
        with self.condition:
            self.waiting.add(me)
            self._next()
            assert self.condition.wait_for(lambda: self.turn == me, timeout=60)
            self.waiting.discard(me)
            self.turn = None

    def leave(self) -> None:
        with self.condition:
            self.running -= 1
            self._next()

    def _next(self) -> None:
        if self.waiting and len(self.waiting) == self.running:
            self.turn = self.random.choice(sorted(self.waiting))
            self.condition.notify_all()


def in_turns(monkeypatch: pytest.MonkeyPatch, seed: int, jobs: Sequence[Callable[[], None]]) -> None:
    turns = Turns(seed, len(jobs))
    names = ("write", "retrieve", "page", "count", "counts", "nearest")
    real = {name: getattr(Connection, name) for name in names}

    def in_turn(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            turns.take()
            return real[name](*args, **options)

        return call

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            turns.leave()

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(Connection, name, in_turn(name))
        with ThreadPoolExecutor(len(jobs)) as pool:
            for future in [pool.submit(run, job) for job in jobs]:
                future.result()


@pytest.mark.parametrize("attempts", [10_000, 1])
@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_of_calls_readers_see_whole_versions(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, seed: int, attempts: int
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", attempts)
    rng = np.random.default_rng(seed)
    versions = [random_document(rng, "a.md", chunks=3, version=f"v{i}") for i in range(4)]
    whole = [{chunk.id for chunk in version.chunks} for version in versions]
    made(client).put_document(versions[0].record, versions[0].parts())
    query = random_query(rng)

    def put(example: Example) -> Callable[[], None]:
        store = made(client)
        return lambda: store.put_document(example.record, example.parts(size=2))

    def fail() -> None:
        with pytest.raises(InputError, match="3 chunks"):
            failing.put_document(versions[3].record, versions[3].parts(size=2)[:1])

    def read() -> None:
        for _ in range(6):
            for found in (
                {chunk.id for chunk in reader.chunks_of("a.md")},
                {id_ for id_, _ in reader.candidates(query, "dense", k=99)},
                {chunk.id for chunk in reader.get(sorted(set().union(*whole)))},
            ):
                if attempts == 1:
                    assert sum(bool(found & version) for version in whole) <= 1, "two versions at a time"
                else:
                    assert found in whole
            assert attempts == 1 or reader.count() == 3

    failing, reader = made(client), made(client)
    in_turns(monkeypatch, seed, [put(versions[1]), put(versions[2]), fail, read])
    after = made(client)
    (record,) = after.documents()
    assert record.version in ("v1", "v2")
    assert {chunk.id for chunk in after.chunks_of("a.md")} == whole[int(record.version[1])]
    assert points(client) == points_of(after) == 3 + 1 + 3


@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_of_calls_single_chunks_are_kept_or_replaced(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    v1, v2 = (random_document(rng, "a.md", chunks=3, version=f"v{i}") for i in (1, 2))
    made(client).put_document(v1.record, v1.parts())

    def upsert(store: QdrantStore, document_id: str, id_: str) -> Callable[[], None]:
        return lambda: store.upsert([Chunk(id_, document_id, id_, 0, len(id_))], random_output(rng, 1))

    def delete(store: QdrantStore) -> None:
        store.delete_chunks(["x", "y", v1.chunks[0].id])

    stores = [made(client) for _ in range(6)]
    jobs = [
        upsert(stores[0], "loose", "x"),
        upsert(stores[1], "loose", "y"),
        upsert(stores[2], "a.md", "z"),
        lambda: stores[3].put_document(v2.record, v2.parts()),
        lambda: delete(stores[4]),
    ]
    if seed % 2:
        jobs.append(lambda: stores[5].delete_documents(["a.md"]) and None)
    in_turns(monkeypatch, seed, jobs)
    after = made(client)
    for record in after.documents():
        found = {chunk.id for chunk in after.chunks_of(record.id)}
        assert record.chunks == len(found) > 0
        if record.id == "loose":
            assert found <= {"x", "y"}
        elif record.version:
            assert record == replace(v2.record, chunks=len(found))
            assert found - {"z"} == {chunk.id for chunk in v2.chunks}
    assert points(client) == points_of(after)
