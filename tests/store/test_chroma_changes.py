"""A change of a ChromaStore that is interrupted anywhere leaves both sides equal, and whole."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="chromadb is not installed: pip install 'm3rag[chroma]'")

import chromadb
from chromadb.config import Settings

import m3rag.store.chroma as module
from m3rag.errors import InputError, StoreError
from m3rag.store.chroma import ChromaStore
from m3rag.store.chroma_items import ChromaItems
from m3rag.store.codec import DEFAULT_CODEC
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Store
from m3rag.store.side_legs_file import SideFile
from m3rag.testing.data import MODEL, Example, random_document, random_query
from m3rag.types import LEGS

NAMES = ("a.md", "b.md", "c.md")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chroma"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with three documents."""
    path = tmp_path_factory.mktemp("base") / "chroma"
    with ChromaStore.create(path, MODEL) as store:
        fill(store)
    return path


def examples() -> dict[str, Example]:
    rng = np.random.default_rng(3)
    made = {name: random_document(rng, name, chunks=8) for name in NAMES}
    made["b.md v2"] = random_document(rng, "b.md", chunks=8, version="v2")
    made["new.md"] = random_document(rng, "new.md", chunks=8)
    return made


def fill(store: Store) -> None:
    made = examples()
    for name in NAMES:
        store.put_document(made[name].record, made[name].parts())


def put_new(store: Store) -> None:
    made = examples()["new.md"]
    store.put_document(made.record, made.parts(size=4))


def put_version(store: Store) -> None:
    made = examples()["b.md v2"]
    store.put_document(made.record, made.parts(size=4))


def put_again(store: Store) -> None:
    made = examples()["b.md"]
    store.put_document(made.record, made.parts(size=4))


def upsert(store: Store) -> None:
    made = examples()
    changed = [replace(chunk, text="changed", metadata={"x": 1}) for chunk in made["a.md"].chunks[:2]]
    fresh = [replace(chunk, id=f"loose {i}", document_id="loose") for i, chunk in enumerate(made["new.md"].chunks[:3])]
    store.upsert([*changed, *fresh], made["new.md"].output[:5])


def delete_documents(store: Store) -> None:
    assert store.delete_documents(["a.md", "b.md"]) == 2


def delete_by_filter(store: Store) -> None:
    assert store.delete({"lang": "de"}) == 9


CHANGES: list[Callable[[Store], None]] = [put_new, put_version, put_again, upsert, delete_documents, delete_by_filter]


def oracle(*changes: Callable[[Store], None]) -> MemoryStore:
    store = MemoryStore(MODEL, codec=DEFAULT_CODEC)
    fill(store)
    for change in changes:
        change(store)
    return store


def contents(store: Store) -> Any:
    chunks = sorted(store.scan(limit=1000)[0], key=lambda chunk: chunk.id)
    return store.documents(), chunks, store.representations([chunk.id for chunk in chunks]).dense.tobytes()


def in_chroma(path: Path) -> dict[str, Any]:
    with chromadb.PersistentClient(path.resolve(), settings=Settings(anonymized_telemetry=False)) as client:
        found = client.get_collection("m3rag", embedding_function=None).get(
            include=["documents", "metadatas", "embeddings"]
        )
    vectors = np.asarray(found["embeddings"], np.float32)
    rows = zip(found["ids"], found["documents"] or [], found["metadatas"] or [], vectors, strict=True)
    return {id_: (text, metadata["m3rag_document_id"], vector.tobytes()) for id_, text, metadata, vector in rows}


def assert_both_sides(path: Path, expected: MemoryStore) -> None:
    with ChromaStore.open(path, MODEL) as store:
        assert contents(store) == contents(expected)
        assert store.foreign == 0
        rng = np.random.default_rng(1)
        for leg in LEGS:
            query = random_query(rng)
            found, best = (target.candidates(query, leg, k=9) for target in (store, expected))
            assert [score for _, score in found] == pytest.approx([score for _, score in best], abs=2e-3)
        with store._side.reading() as (_, connection):
            for table in ("chunks", "legs"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (expected.count(),)
            assert connection.execute("SELECT count(*) FROM marked").fetchone() == (0,)
            orphans = "SELECT count(*) FROM {} WHERE row NOT IN (SELECT row FROM chunks)"
            for table in ("terms", "numbers"):
                assert connection.execute(orphans.format(table)).fetchone() == (0,)
    chunks, _ = expected.scan(limit=1000)
    dense = expected.representations([chunk.id for chunk in chunks]).dense
    rows = zip(chunks, dense, strict=True)
    assert in_chroma(path) == {chunk.id: (chunk.text, chunk.document_id, vector.tobytes()) for chunk, vector in rows}


class Steps:
    """Every write of either side, counted; the n-th and (if it stays broken) all after it fail."""

    def __init__(self, patch: pytest.MonkeyPatch, *, fail_at: int, stays: bool) -> None:
        self.seen, self.fail_at, self.stays = 0, fail_at, stays
        writing, put, delete = SideFile.writing, ChromaItems.put, ChromaItems.delete

        @contextmanager
        def guarded(file: SideFile, **options: Any) -> Iterator[Any]:
            with writing(file, **options) as connection:
                self.step()
                yield connection
                self.step()

        def guarded_put(items: ChromaItems, *args: Any, **options: Any) -> None:
            self.step()
            put(items, *args, **options)
            self.step()

        def guarded_delete(items: ChromaItems, ids: Any) -> None:
            self.step()
            delete(items, ids)

        patch.setattr(SideFile, "writing", guarded)
        patch.setattr(ChromaItems, "put", guarded_put)
        patch.setattr(ChromaItems, "delete", guarded_delete)

    def step(self) -> None:
        self.seen += 1
        if self.seen == self.fail_at or (self.stays and self.seen > self.fail_at):
            raise StoreError("the disk is gone")


@pytest.mark.parametrize("stays", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_failure_at_any_step_is_undone_or_repaired(
    base: Path, tmp_path: Path, change: Callable[[Store], None], stays: bool
) -> None:
    before, after = oracle(), oracle(change)
    for n in range(1, 1000):
        path = tmp_path / f"{n}"
        shutil.copytree(base, path)
        store = ChromaStore.open(path)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, fail_at=n, stays=stays)
            try:
                change(store)
            except StoreError:
                assert contents(store) == contents(before)
        if not stays and steps.seen >= n:
            change(store)  # the store goes on after the failure
            assert contents(store) == contents(after)
        store.close()
        assert_both_sides(path, before if stays and steps.seen >= n else after)
        shutil.rmtree(path)
        if steps.seen < n:
            break
    assert n > 5


CHILD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_chroma_changes as here
from m3rag.store.chroma import ChromaStore

store = ChromaStore.open(sys.argv[1])
change, n = sys.argv[2].split()

class Killed(here.Steps):
    def step(self):
        self.seen += 1
        if self.seen == int(n):
            os.kill(os.getpid(), signal.SIGKILL)

Killed(here.pytest.MonkeyPatch(), fail_at=0, stays=False)
getattr(here, change)(store)
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize(
    "moment",
    [
        *(
            "put_version 2",
            "put_version 5",
            "put_version 9",
            "put_version 16",
            "put_version 19",
            "put_version 99",
            "put_again 6",
        ),
        *("upsert 4", "upsert 7", "upsert 99", "delete_documents 3", "delete_documents 99"),
    ],
)
def test_a_kill_leaves_every_document_whole_or_absent(base: Path, path: Path, moment: str) -> None:
    shutil.copytree(base, path)
    command = [sys.executable, "-c", CHILD, str(path), moment, str(Path(__file__).parent)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert ("done" in child.stdout) == moment.endswith("99")
    change = globals()[moment.split(maxsplit=1)[0]]
    assert_both_sides(path, oracle(change) if moment.endswith("99") else oracle())
    with ChromaStore.open(path) as store:
        change(store) if not moment.endswith("99") else put_new(store)
    assert_both_sides(path, oracle(change) if not moment.endswith("99") else oracle(change, put_new))


def test_a_half_replaced_document_is_found_whole_by_the_graph(
    base: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    shutil.copytree(base, path)
    query = random_query(np.random.default_rng(5))
    expected = oracle().candidates(query, "dense", k=24)
    seen = []
    with ChromaStore.open(path) as store:
        delete = ChromaItems.delete

        def watched(items: ChromaItems, ids: Any) -> None:
            delete(items, ids)
            seen.append([id_ for id_, _ in store.candidates(query, "dense", k=24)])

        monkeypatch.setattr(ChromaItems, "delete", watched)
        put_again(store)
    assert len(seen) >= 3
    assert all(ids == [id_ for id_, _ in expected] for ids in seen)


# Others in the collection


def test_items_that_others_remove_are_dropped_here(base: Path, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(base, path)
    made = examples()
    gone = [made["a.md"].chunks[2].id, *(chunk.id for chunk in made["c.md"].chunks)]
    with chromadb.PersistentClient(path.resolve(), settings=Settings(anonymized_telemetry=False)) as client:
        client.get_collection("m3rag", embedding_function=None).delete(ids=gone)
    expected = oracle()
    assert expected.delete_chunks(gone) == 9
    with caplog.at_level(logging.WARNING), ChromaStore.open(path) as store:
        assert f"9 chunks of the index at {path} are no longer in its Chroma collection" in caplog.text
        assert store.count() == 15
        assert store.get(gone) == []
        # No longer the version that was ingested, so that the next ingest completes it.
        assert store.documents() == [
            replace(made["a.md"].record, chunks=7, version=""),
            made["b.md"].record,
        ]
        store.put_document(made["a.md"].record, made["a.md"].parts())
        store.put_document(made["c.md"].record, made["c.md"].parts())
    assert_both_sides(path, oracle())


def test_items_that_others_add_are_counted_and_left_alone(base: Path, path: Path) -> None:
    shutil.copytree(base, path)
    theirs = ["their-1", examples()["new.md"].chunks[3].id]
    with chromadb.PersistentClient(path.resolve(), settings=Settings(anonymized_telemetry=False)) as client:
        client.get_collection("m3rag", embedding_function=None).add(
            ids=theirs, embeddings=np.ones((2, MODEL.dense_dim), np.float32), documents=["theirs"] * 2
        )
    with ChromaStore.open(path) as store:
        assert store.foreign == 2
        assert store.count() == 24
        assert store.get(theirs) == []
        with pytest.raises(InputError, match="an item of this id that m3rag did not write"):
            put_new(store)
        assert contents(store) == contents(oracle())
        put_version(store)
    with chromadb.PersistentClient(path.resolve(), settings=Settings(anonymized_telemetry=False)) as client:
        collection = client.get_collection("m3rag", embedding_function=None)
        assert collection.get(ids=theirs)["documents"] == ["theirs"] * 2
        assert collection.count() == 26


@pytest.mark.parametrize(("failures", "message"), [(3, ""), (4, "compaction"), (1, "disk full")])
def test_chroma_is_asked_again_where_it_could_not_order_its_log(
    base: Path, path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, message: str
) -> None:
    monkeypatch.setattr("m3rag.store.chroma_items.PAUSES", (0.0, 0.0, 0.0))
    shutil.copytree(base, path)
    with ChromaStore.open(path) as store:
        upsert_items = type(store._items._collection).upsert
        left = failures

        def fails_at_first(collection: Any, **options: Any) -> None:
            nonlocal left
            upsert_items(collection, **options)  # Chroma has written when it says so
            if left:
                left -= 1
                raise chromadb.errors.InternalError(
                    message if message == "disk full" else "Error in compaction: Failed to apply logs"
                )

        monkeypatch.setattr(type(store._items._collection), "upsert", fails_at_first)
        if message:
            with pytest.raises(StoreError, match=message):
                put_new(store)
        else:
            put_new(store)
    monkeypatch.undo()
    assert_both_sides(path, oracle() if message else oracle(put_new))


class Interrupted:
    """A connection that a Ctrl-C comes through right after its n-th beginning or end of a transaction."""

    def __init__(self, connection: Any, *, at: int) -> None:
        self.connection, self.left = connection, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        found = self.connection.execute(sql, *values)
        if sql in ("BEGIN IMMEDIATE", "COMMIT"):
            self.left -= 1
            if self.left == -1:
                raise KeyboardInterrupt
        return found


def test_a_ctrl_c_leaves_the_store_that_is_open_whole(path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(base, path)
    made = examples()["a.md"]
    changed = [*made.chunks[:3], replace(made.chunks[3], id="new", document_id="new.md")]
    ids = [chunk.id for chunk in changed]
    with ChromaStore.open(path, MODEL) as store:
        for at in range(30):
            store.delete_chunks(["new"])
            before = {chunk.text for chunk in store.get(ids)}
            count = store.count()
            given = [replace(chunk, text=f"changed {at}") for chunk in changed]
            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(store._side.file, "_writer", Interrupted(store._side.file._writer, at=at))
                store.upsert(given, made.output[:4])
                break
            after = {chunk.text for chunk in store.get(ids)}
            assert after in (before, {f"changed {at}"})
            assert store.count() == count + (after != before) == sum(record.chunks for record in store.documents())
            found = store.candidates(random_query(np.random.default_rng(1)), "dense", k=99)
            assert len(found) == store.count() == len(store._items.ids())
        assert at >= 8
        expected = contents(store)
    with ChromaStore.open(path, MODEL) as again:
        assert contents(again) == expected
