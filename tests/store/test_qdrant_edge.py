"""QdrantEdgeStore passes the suite, and survives kills, locks and damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as qdrant

import m3rag.store.qdrant_edge as module
from m3rag.errors import (
    IndexLockedError,
    IndexMismatchError,
    IndexMissingError,
    InputError,
    M3RagError,
    StoreError,
)
from m3rag.output import M3Output
from m3rag.store import FORMAT, MemoryStore, QdrantEdgeStore, edge_folder
from m3rag.store.edge_folder import MANIFEST, PARTIAL_MANIFEST, PARTIAL_SHARD, SHARD
from m3rag.store.edge_seal import SEAL
from m3rag.testing import StoreSuite
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import LEGS, Chunk, ModelInfo


class TestQdrantEdgeStore(StoreSuite):
    persistent = True
    second_handle = "refused"

    def make_store(self, path: Path, model: ModelInfo) -> QdrantEdgeStore:
        # Beside the oracle; the other codecs are in test_edge_codec.py.
        return QdrantEdgeStore.create(path, model, codec="float16")

    def reopen_store(self, path: Path, model: ModelInfo) -> QdrantEdgeStore:
        return QdrantEdgeStore.open(path, model)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# Locks

OPENER = """
import sys
from m3rag.errors import IndexLockedError
from m3rag.store import QdrantEdgeStore
try:
    QdrantEdgeStore.open(sys.argv[1])
except IndexLockedError as error:
    print(error)
"""


def test_a_second_process_is_refused(path: Path) -> None:
    command = [sys.executable, "-c", OPENER, str(path)]
    with QdrantEdgeStore.create(path, MODEL):
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"the index at {path} is in use by another process" in told
        with pytest.raises(IndexLockedError, match="in use"):
            QdrantEdgeStore.open(path)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_readers_wait_for_no_encoder(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=6)
    reached, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield example.parts()[0]
        reached.set()
        assert go_on.wait(30)
        yield example.parts()[1]

    with QdrantEdgeStore.create(path, MODEL) as store:
        writer = threading.Thread(target=store.put_document, args=(example.record, slow()))
        writer.start()
        assert reached.wait(30)
        assert store.count() == 0
        assert store.documents() == []
        go_on.set()
        writer.join()
        assert store.count() == 6


# The folder


FORKING = """
import os, signal, sys
import numpy as np
from m3rag.errors import IndexLockedError
from m3rag.store import QdrantEdgeStore
from m3rag.testing.data import MODEL, random_document, random_query

rng = np.random.default_rng(3)
store = QdrantEdgeStore.create(sys.argv[1], MODEL)
made = random_document(rng, "a.md", chunks=2000)
store.put_document(made.record, made.parts(500))
query = random_query(rng)
for _ in range(2):
    store.candidates(query, "dense", k=3)
assert store._view._reader is not None  # whose thread holds the engine's lock most of the time
child = os.fork()
if child == 0:
    signal.alarm(60)
    for ask in (
        lambda: store.candidates(query, "dense", k=3),
        lambda: store.count(),
        lambda: store.delete_documents(["a.md"]),
    ):
        try:
            ask()
        except IndexLockedError as error:
            print(error, flush=True)
    store.close()
    os._exit(0)
print(os.waitpid(child, 0)[1])
print(store.count())
store.close()
with QdrantEdgeStore.open(sys.argv[1]) as again:
    print(again.count())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_is_refused_at_once(path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *told, status, ours, kept = done.stdout.splitlines()
    assert [f"the index in {path} is open in the process that this one was forked from" in one for one in told] == (
        [True] * 3
    )
    assert (status, ours, kept) == ("0", "2000", "2000")


def test_an_index_stays_where_it_was_opened(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    first, second = random_document(rng, "a.md", chunks=20), random_document(rng, "b.md", chunks=3)
    with QdrantEdgeStore.create("docs.index", MODEL) as store:
        store.put_document(first.record, first.parts(20))
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.put_document(second.record, second.parts(3))
        store.delete_documents(["a.md"])
        store.optimize()
        assert store.path == tmp_path / "docs.index"
    assert not list((tmp_path / "elsewhere").iterdir())
    with QdrantEdgeStore.open(tmp_path / "docs.index") as store:
        assert [record.id for record in store.documents()] == ["b.md"]
        assert store.count() == 3


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", b"bytes"], ids=["too long", "with a NUL", "bytes"])
def test_what_no_folder_can_be_called_is_refused(tmp_path: Path, name: str | bytes) -> None:
    where = name if isinstance(name, bytes) else str(tmp_path / name)
    for way in (QdrantEdgeStore.open, QdrantEdgeStore.exists):
        with pytest.raises(InputError, match="cannot be the folder of an index"):
            way(where)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be the folder of an index"):
        QdrantEdgeStore.create(where, MODEL)  # type: ignore[arg-type]


def test_open_needs_an_index(path: Path) -> None:
    assert not QdrantEdgeStore.exists(path)
    with pytest.raises(IndexMissingError, match=rf"{path}.*m3rag ingest"):
        QdrantEdgeStore.open(path)
    path.write_text("Ducks.")
    with pytest.raises(IndexMissingError, match=rf"{path}, which is a file: give the folder"):
        QdrantEdgeStore.open(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(IndexMissingError):
        QdrantEdgeStore.open(path, MODEL)


def test_open_or_create(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=2)
    for _ in range(2):
        with QdrantEdgeStore.open_or_create(path, MODEL) as store:
            store.put_document(example.record, example.parts())
            assert store.count() == 2
            assert store.path == path
    assert QdrantEdgeStore.exists(path)
    with pytest.raises(InputError, match="already an index"):
        QdrantEdgeStore.create(path, MODEL)
    with pytest.raises(IndexMismatchError):
        QdrantEdgeStore.open_or_create(path, replace(MODEL, fingerprint="other"))


def test_the_revision_outlives_a_close(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=3)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
        revision = store.revision
    for _ in range(2):
        with QdrantEdgeStore.open(path) as store:
            assert store.revision == revision
    with QdrantEdgeStore.open(path) as store:
        store.delete_chunks([example.chunks[0].id])
        assert store.revision != revision


def test_a_closed_folder_holds_a_manifest_a_shard_and_a_seal(path: Path) -> None:
    QdrantEdgeStore.create(path, MODEL).close()
    assert sorted(entry.name for entry in path.iterdir()) == [MANIFEST, SEAL, SHARD]
    written = json.loads((path / MANIFEST).read_text())
    assert written["format"] == FORMAT
    assert written["model"]["name"] == "random"


def test_foreign_files_are_never_touched(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    for make in (QdrantEdgeStore.create, QdrantEdgeStore.open_or_create):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            make(path, MODEL)
    assert [entry.name for entry in path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        QdrantEdgeStore.open_or_create(path / "thesis.txt", MODEL)


@pytest.mark.parametrize("left", ["folder", "partial shard", "partial manifest", "manifest"])
def test_an_interrupted_creation_is_finished(path: Path, rng: np.random.Generator, left: str) -> None:
    if left == "manifest":
        QdrantEdgeStore.create(path, MODEL).close()
        (path / SEAL).unlink()
        (path / SHARD).rename(path / PARTIAL_SHARD)
    else:
        path.mkdir()
    if left.startswith("partial"):
        (path / PARTIAL_SHARD / "segments").mkdir(parents=True)
        (path / PARTIAL_SHARD / "segments" / "half").write_text("half")
    if left == "partial manifest":
        (path / PARTIAL_MANIFEST).write_text('{"mod')
    example = random_document(rng, "a.md", chunks=2)
    with QdrantEdgeStore.open_or_create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
    with QdrantEdgeStore.open(path) as store:
        assert store.manifest.model == MODEL
        assert store.count() == 2
    assert sorted(entry.name for entry in path.iterdir()) == [MANIFEST, SEAL, SHARD]


def test_two_make_an_index_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, making, others = edge_folder._make_partial_shard, threading.Event(), list[BaseException]()

    def other() -> None:
        assert making.wait(20)
        try:
            QdrantEdgeStore.open_or_create(path, replace(MODEL, dense_dim=MODEL.dense_dim + 1, fingerprint="another"))
        except M3RagError as error:
            others.append(error)

    def slow(folder: Path, model: ModelInfo) -> None:
        make(folder, model)
        making.set()
        thread.join(0.3)

    monkeypatch.setattr(edge_folder, "_make_partial_shard", slow)
    thread = threading.Thread(target=other)
    thread.start()
    with QdrantEdgeStore.open_or_create(path, MODEL) as store:
        thread.join(20)
        assert store.manifest.model == MODEL
    assert [type(error) for error in others] == [IndexMismatchError]
    QdrantEdgeStore.open(path, MODEL).close()
    assert sorted(entry.name for entry in path.iterdir()) == [MANIFEST, SEAL, SHARD]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "x"}', '{"format": 1, "model": {"name": "x"}}'])
def test_a_damaged_manifest_is_named(path: Path, content: str) -> None:
    QdrantEdgeStore.create(path, MODEL).close()
    (path / MANIFEST).write_text(content)
    with pytest.raises(StoreError, match=rf"{MANIFEST} is damaged .*ingest again"):
        QdrantEdgeStore.open(path, MODEL)


def test_a_newer_format_is_refused(path: Path) -> None:
    QdrantEdgeStore.create(path, MODEL).close()
    written = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**written, "format": FORMAT + 1, "model": {"of": "tomorrow"}}))
    with pytest.raises(IndexMismatchError, match="upgrade"):
        QdrantEdgeStore.open(path, MODEL)


def test_missing_parts_are_named_and_nothing_is_deleted(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=2)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
    manifest = (path / MANIFEST).read_bytes()
    (path / MANIFEST).unlink()
    with pytest.raises(StoreError, match=rf"{MANIFEST} is missing"):
        QdrantEdgeStore.open_or_create(path, MODEL)
    (path / MANIFEST).write_bytes(manifest)
    with QdrantEdgeStore.open(path, MODEL) as store:
        assert store.count() == 2
    shutil.rmtree(path / SHARD)
    with pytest.raises(StoreError, match=rf"{SHARD} is missing"):
        QdrantEdgeStore.open_or_create(path, MODEL)


def test_a_damaged_shard_is_named(path: Path) -> None:
    QdrantEdgeStore.create(path, MODEL).close()
    (path / SEAL).unlink()
    shutil.rmtree(path / SHARD / "segments")
    (path / SHARD / "edge_config.json").write_text("{")
    with pytest.raises(StoreError, match=f"{path} cannot be opened") as caught:
        QdrantEdgeStore.open(path, MODEL)
    assert not isinstance(caught.value, IndexLockedError)
    assert caught.value.__cause__ is not None


# Search


def test_approximate_dense_candidates_have_exact_scores(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    example = random_document(rng, "a.md", chunks=300)
    oracle = MemoryStore(MODEL)
    oracle.put_document(example.record, example.parts(size=100))
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts(size=100))
        for _ in range(5):
            query = random_query(rng)
            found = store.candidates(query, "dense", k=20)
            assert len(found) == 20
            assert dict(found) == pytest.approx(oracle.score(query, "dense", [id_ for id_, _ in found]), abs=1e-5)


def test_optimizing_and_flushing_change_no_result(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.store.edge_engine.FLUSH_EVERY", 1)
    soon = qdrant.EdgeOptimizersConfig(indexing_threshold=10)
    monkeypatch.setattr("m3rag.store.edge_points.optimizers", lambda model: soon)
    oracle = MemoryStore(MODEL)
    with QdrantEdgeStore.create(path, MODEL) as store:
        for i in range(3):
            example = random_document(rng, f"{i}.md", chunks=400)
            for target in (store, oracle):
                target.put_document(example.record, example.parts(size=200))
        with store._engine.shard() as shard:
            assert shard.info().indexed_vectors_count > 1200, "no graph was built, the test tests nothing"
        assert not store.optimize(), "put_document had left something to optimize"
        assert store.delete_documents(["1.md", "2.md"]) == oracle.delete_documents(["1.md", "2.md"])
        query = random_query(rng)
        for leg in LEGS:
            found, expected = (s.candidates(query, leg, k=50) for s in (store, oracle))
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-3)
    with QdrantEdgeStore.open(path) as store:
        assert store.count() == 400
        assert store.documents() == oracle.documents()


def test_a_chunk_of_the_longest_text(path: Path, rng: np.random.Generator) -> None:
    model = replace(MODEL, colbert_dim=1024)
    vectors = rng.standard_normal((8192, 1024)).astype(np.float16)
    example = random_document(rng, "a.md", chunks=1, model=model)
    output = replace(example.output, colbert=vectors, offsets=np.array([0, 8192]))
    with QdrantEdgeStore.create(path, model, codec="float16") as store:
        store.put_document(example.record, [(example.chunks, output)])
        assert np.array_equal(store.representations([example.chunks[0].id]).colbert, vectors)


def test_errors_of_the_engine_are_store_errors(path: Path) -> None:
    with QdrantEdgeStore.create(path, MODEL) as store:
        with pytest.raises(StoreError, match=f"{path} failed") as caught, store._engine.shard() as shard:
            shard.retrieve(["no uuid"])
        assert caught.value.__cause__ is not None
