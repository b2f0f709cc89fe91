"""Changes of a Qdrant Edge index: a kill at any moment, and failures, leave every chunk whole and every count true."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.store import MemoryStore, QdrantEdgeStore, Store
from m3rag.store.edge_engine import EdgeEngine
from m3rag.testing.data import MODEL, random_document, random_output
from m3rag.types import Chunk

NO_SIGKILL = pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# A kill at any moment


def fill(store: Store) -> None:
    rng = np.random.default_rng(3)
    for name in ("a.md", "b.md", "c.md"):
        example = random_document(rng, name, chunks=8)
        store.put_document(example.record, example.parts())
    loose = random_document(rng, "loose.md", chunks=3)
    store.upsert(loose.chunks, loose.output)


def change(store: Store, kind: str) -> None:
    rng = np.random.default_rng(4)
    if kind in ("put", "new"):
        example = random_document(rng, *(("b.md",) if kind == "put" else ("new.md",)), chunks=8, version="v2")
        store.put_document(example.record, example.parts())
    elif kind == "upsert":
        moved = [replace(chunk, document_id="b.md") for chunk in store.get(["a.md@v1#0", "loose.md@v1#0"])]
        changed = [replace(chunk, text="changed") for chunk in store.get(["c.md@v1#1", "c.md@v1#2"])]
        fresh = random_document(rng, "fresh.md", chunks=2).chunks
        store.upsert([*moved, *changed, *fresh], random_output(rng, 6))
    elif kind == "delete":
        store.delete_documents(["a.md", "b.md", "loose.md"])
    else:
        store.delete({"$or": [{"document_id": "loose.md"}, {"lang": "de"}]})


# A process without the engine forks a writer for each moment, which kills itself before its n-th write: forks start
# in milliseconds where a new interpreter takes a second.
CHILD = """
import os, runpy, signal, sys, traceback
from pathlib import Path
from m3rag.store import QdrantEdgeStore
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_tokens import EdgeTokens
from m3rag.testing.data import MODEL

shared, folder, kind, writes = runpy.run_path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
update, write = EdgeEngine.update, EdgeTokens.write

def killed_before(left, path):
    def counted(method):
        def call(self, what):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return method(self, what)
        return call

    store = QdrantEdgeStore.create(path, MODEL, codec="float16")
    shared["fill"](store)
    EdgeEngine.update, EdgeTokens.write = counted(update), counted(write)
    shared["change"](store, kind)
    print("done", left, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

for n in range(writes + 1):
    child = os.fork()
    if child == 0:
        try:
            killed_before(n, folder / str(n))
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    print(n, "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else "failed", flush=True)
"""

# Writes, and from which on the change has happened. put = pending, three times token vectors and a part, record,
# old chunks, pending (new: no old chunks); upsert = token vectors, all points, counts, pending; delete = pending,
# records, chunks, pending; chunks = pending, chunks, counts, pending. The last moment is after the return.
WRITES = {"put": (10, 8), "new": (9, 8), "upsert": (4, 2), "delete": (4, 2), "chunks": (4, 2)}


@NO_SIGKILL
@pytest.mark.parametrize("kind", WRITES)
def test_a_kill_leaves_every_document_whole_or_absent(tmp_path: Path, kind: str) -> None:
    writes, happened_from = WRITES[kind]
    command = [sys.executable, "-c", CHILD, __file__, str(tmp_path), kind, str(writes)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    ends = [*(f"{n} killed" for n in range(writes)), "done 0", f"{writes} killed"]
    assert told.stdout.splitlines() == ends, told.stderr
    for n in range(writes + 1):
        oracle = MemoryStore(MODEL)
        fill(oracle)
        if n >= happened_from:
            change(oracle, kind)
        with QdrantEdgeStore.open(tmp_path / str(n), MODEL) as store:
            same(store, oracle)
            # And the change can be made, or made again.
            change(store, kind)
            if n < happened_from:
                change(oracle, kind)
                same(store, oracle)


def same(store: Store, oracle: MemoryStore) -> None:
    assert store.documents() == oracle.documents()
    expected, _ = oracle.scan(limit=1000)
    found, _ = store.scan(limit=1000)
    assert sorted(found, key=lambda chunk: chunk.id) == expected
    ids = [chunk.id for chunk in expected]
    given, kept = oracle.representations(ids), store.representations(ids)
    assert np.array_equal(kept.dense, given.dense)
    assert np.array_equal(kept.colbert, given.colbert)
    assert np.array_equal(kept.lexical.toarray(), given.lexical.toarray())


# A process forks writers, kills them at random moments, and forks checkers.
KILLER = """
import os, random, select, signal, sys, time, traceback
import numpy as np
from m3rag.store import QdrantEdgeStore
from m3rag.testing.data import MODEL, random_document, random_output
from m3rag.types import Chunk

path = sys.argv[1]

def batch(round, step):
    rng = np.random.default_rng([round, step])
    numbers = rng.choice(300, int(rng.choice([1, 5, 100])), replace=False)
    name = f"of {round}.{step}"
    chunks = [Chunk(f"chunk {n}", f"{n % 7}.md", f"{n} {name}", 0, 9, metadata={"n": int(n)}) for n in numbers]
    return chunks, random_output(rng, len(chunks))

def write(round, pipe):
    store = QdrantEdgeStore.open_or_create(path, MODEL, codec="float16")
    for step in range(100_000):
        store.upsert(*batch(round, step))
        os.write(pipe, b".")

def check(acknowledged):
    known, maybe = {}, {}
    for round, steps in enumerate(acknowledged):
        for step in range(steps + 1):
            chunks, output = batch(round, step)
            for chunk, one in zip(chunks, output):
                given = (chunk, one)
                if step < steps:
                    known[chunk.id], maybe[chunk.id] = given, []
                else:
                    maybe.setdefault(chunk.id, []).append(given)
    with QdrantEdgeStore.open(path, MODEL) as store:
        stored, _ = store.scan(limit=1000)
        lost = known.keys() - {chunk.id for chunk in stored}
        assert not lost, f"acknowledged and lost: {lost}"
        kept = store.representations([chunk.id for chunk in stored])
        for chunk, one in zip(stored, kept):
            possible = [g for g in (known.get(chunk.id), *maybe.get(chunk.id, [])) if g and g[0] == chunk]
            assert possible, f"neither as acknowledged nor as being written: {chunk}"
            given = possible[-1][1]
            assert np.array_equal(given.dense, one.dense), chunk
            assert np.array_equal(given.colbert, one.colbert), chunk
            assert np.array_equal(given.lexical.toarray(), one.lexical.toarray()), chunk
        counts = {}
        for chunk in stored:
            counts[chunk.document_id] = counts.get(chunk.document_id, 0) + 1
        assert {record.id: record.chunks for record in store.documents()} == counts

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child

random.seed(5)
acknowledged = []
for round in range(20):
    reading, writing = os.pipe()
    child = forked(lambda: write(round, writing))
    os.close(writing)
    steps = 0
    # The first acknowledgement, so that each writer gets to write, then some more time.
    if select.select([reading], [], [], 60)[0]:
        time.sleep(random.random() * 0.3)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    while got := os.read(reading, 65536):
        steps += len(got)
    os.close(reading)
    acknowledged.append(steps)
    _, status = os.waitpid(forked(lambda: check(acknowledged)), 0)
    assert status == 0, f"after kill {round + 1}"
print(sum(acknowledged), min(acknowledged))
"""


@NO_SIGKILL
def test_random_kills_lose_no_acknowledged_chunk(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLER, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total, least = map(int, done.stdout.split())
    assert total >= 20, "the writers hardly wrote, the test tests nothing"
    assert least >= 1


# Failures


def test_a_rollback_leaves_no_points(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=9)
    with QdrantEdgeStore.create(path, MODEL, codec="float16") as store:
        with pytest.raises(InputError, match="9 chunks"):
            store.put_document(example.record, example.parts()[:2])
        with store._engine.shard() as shard:
            assert shard.info().points_count == 0


def test_a_rollback_that_fails_is_made_up_for_at_the_next_open(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = random_document(rng, "a.md", chunks=3), random_document(rng, "a.md", chunks=9, version="v2")
    store = QdrantEdgeStore.create(path, MODEL, codec="float16")
    store.put_document(old.record, old.parts())

    def broken() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield new.parts()[0]
        monkeypatch.setattr(EdgeEngine, "update", fails)
        raise KeyboardInterrupt

    def fails(self: EdgeEngine, operation: Any) -> None:
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="the disk is gone"):
        store.put_document(new.record, broken())
    assert store.count() == 3
    store.close()
    monkeypatch.undo()
    with QdrantEdgeStore.open(path, MODEL) as again:
        assert again.documents() == [old.record]
        assert again.chunks_of("a.md") == list(old.chunks)


@pytest.mark.parametrize("change", ["upsert", "delete_chunks", "delete_documents"])
def test_after_a_ctrl_c_at_any_step_records_count_their_chunks(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    example = random_document(rng, "a.md", chunks=3)
    loose = [Chunk(f"loose {i}", ("a.md", "b.md")[i % 2], "text", 0, 4) for i in range(4)]
    changes: dict[str, Callable[[Store], object]] = {
        "upsert": lambda store: store.upsert(loose, random_output(np.random.default_rng(1), 4)),
        "delete_chunks": lambda store: store.delete_chunks([example.chunks[0].id, "loose 1", "loose 3"]),
        "delete_documents": lambda store: store.delete_documents(["a.md", "b.md"]),
    }
    update = EdgeEngine.update
    steps = 0
    with QdrantEdgeStore.create(path, MODEL, codec="float16") as store:
        for at in range(20):
            store.delete_documents(["a.md", "b.md"])
            store.put_document(example.record, example.parts())
            if change != "upsert":
                changes["upsert"](store)
            updates = iter(range(20))

            def interrupted(engine: EdgeEngine, operation: Any, at: int = at, updates: Iterator[int] = updates) -> None:
                if next(updates) == at:
                    raise KeyboardInterrupt
                update(engine, operation)

            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(EdgeEngine, "update", interrupted)
                changes[change](store)
                break
            steps += 1
            chunks, _ = store.scan()
            assert {record.id: record.chunks for record in store.documents()} == Counter(c.document_id for c in chunks)
    assert steps >= 3
