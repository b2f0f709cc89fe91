"""ChromaStore passes the suite in a folder and on a real server; others read what it wrote."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="chromadb is not installed: pip install 'm3rag[chroma]'")

import chromadb
from chromadb.config import Settings

import m3rag.store.chroma as module
from m3rag.errors import IndexLockedError, IndexMismatchError, IndexMissingError, InputError, StoreError
from m3rag.store.chroma import ChromaStore
from m3rag.store.chroma_items import flat_metadata
from m3rag.store.memory import MemoryStore
from m3rag.testing import StoreSuite
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import ModelInfo

QUIET = Settings(anonymized_telemetry=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Chroma server of our own."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("chroma-server")
    command = [Path(sys.executable).with_name("chroma"), "run", "--path", folder, "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/v2/heartbeat", process, folder / "log")
        yield address
    finally:
        process.kill()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"no Chroma server within a minute: {log.read_text(errors='replace')}")


class TestChromaFolder(StoreSuite):
    persistent = True
    second_handle = "refused"

    def make_store(self, path: Path, model: ModelInfo) -> ChromaStore:
        return ChromaStore.create(path, model, codec="float16")

    def reopen_store(self, path: Path, model: ModelInfo) -> ChromaStore:
        return ChromaStore.open(path, model)


class TestChromaServer(StoreSuite):
    persistent = True
    second_handle = "refused"

    @pytest.fixture(autouse=True)
    def _on(self, server: str) -> None:
        self.server = server

    def make_store(self, path: Path, model: ModelInfo) -> ChromaStore:
        return ChromaStore.create(self.server, model, side=path, collection=self.name(path), codec="float16")

    def reopen_store(self, path: Path, model: ModelInfo) -> ChromaStore:
        return ChromaStore.open(self.server, model, side=path, collection=self.name(path))

    def name(self, path: Path) -> str:
        return hashlib.sha256(str(path).encode()).hexdigest()[:20]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chroma"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def filled(store: ChromaStore, rng: np.random.Generator, *, chunks: int = 5) -> Any:
    example = random_document(rng, "a.md", chunks=chunks)
    store.put_document(example.record, example.parts(size=100))
    return example


# Others read it


def test_plain_chroma_reads_what_was_written(path: Path, rng: np.random.Generator) -> None:
    with ChromaStore.create(path, MODEL) as store:
        example = filled(store, rng)
    with chromadb.PersistentClient(path, settings=QUIET) as client:
        collection = client.get_collection("m3rag", embedding_function=None)
        chunk = example.chunks[1]
        found = collection.get(ids=[chunk.id], include=["documents", "metadatas", "embeddings"])
        assert found["documents"] == [chunk.text]
        assert np.array_equal(np.asarray(found["embeddings"], np.float32), example.output.dense[1:2])
        (metadata,) = found["metadatas"]
        ours = {name: value for name, value in metadata.items() if name.startswith("m3rag_")}
        assert ours == {
            "m3rag_document_id": "a.md",
            "m3rag_start": chunk.start,
            "m3rag_end": chunk.end,
            "m3rag_page": 2,
            "m3rag_headings": "Top > Part 1",
        }
        flat = {key: value for key, value in chunk.metadata.items() if isinstance(value, str | int | float)}
        assert {name: metadata[name] for name in metadata.keys() - ours.keys()} == flat
        assert flat.keys() >= {"lang", "year", "score", "draft", 'odd "key".[0]'}
        assert len(collection.get(where={"lang": "de"})["ids"]) == 2
        nearest = collection.query(query_embeddings=[example.output.dense[3]], n_results=1)
        assert nearest["ids"] == [[example.chunks[3].id]]
        assert nearest["distances"][0][0] == pytest.approx(0, abs=1e-5)


def test_metadata_that_chroma_cannot_hold_stay_here(path: Path, rng: np.random.Generator) -> None:
    odd = {
        "": 1,
        "$a": 1,
        "#b": 1,
        "chroma:document": "x",
        "m3rag_start": 9,
        "big": 2**63,
        "\ud800": 1,
        "half": "\ud800",
    }
    kept = {"least": -(2**63), "most": 2**63 - 1, "nul\0key": "a\0b", "long": "é" * 1_000_000, "float": 1.0}
    with ChromaStore.create(path, MODEL) as store:
        example = random_document(rng, "a.md", chunks=1, metadata={**odd, **kept})
        store.put_document(example.record, example.parts())
        assert store.get([example.chunks[0].id]) == list(example.chunks)
        flat = flat_metadata(example.chunks[0])
        assert flat.keys() & {**odd, **kept}.keys() == {*kept, "m3rag_start"}
        assert flat["m3rag_start"] == 0
    with chromadb.PersistentClient(path, settings=QUIET) as client:
        (found,) = client.get_collection("m3rag", embedding_function=None).get()["metadatas"] or []
        assert found == flat
        assert isinstance(found["float"], float)


def test_replacing_a_chunk_takes_its_old_metadata_away(path: Path, rng: np.random.Generator) -> None:
    with ChromaStore.create(path, MODEL) as store:
        example = random_document(rng, "a.md", chunks=2, metadata={"old": 1})
        store.put_document(example.record, example.parts())
        fresh = replace(example.chunks[0], metadata={"new": 2}, text="other")
        store.upsert([fresh], example.output[1])
    with chromadb.PersistentClient(path, settings=QUIET) as client:
        found = client.get_collection("m3rag", embedding_function=None).get(
            ids=[fresh.id], include=["documents", "metadatas", "embeddings"]
        )
        assert found["documents"] == ["other"]
        assert "old" not in found["metadatas"][0]
        assert found["metadatas"][0]["new"] == 2
        assert np.array_equal(np.asarray(found["embeddings"], np.float32), example.output.dense[1:2])


# Dense candidates by Chroma's graph


def test_candidates_of_the_graph_have_exact_scores(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    oracle = MemoryStore(MODEL)
    hnsw = {"ef_search": 200, "ef_construction": 200, "max_neighbors": 32}
    with ChromaStore.create(path, MODEL, hnsw=hnsw) as store:
        example = random_document(rng, "a.md", chunks=600)
        for target in (store, oracle):
            target.put_document(example.record, example.parts(size=100))
        made = store._items._collection._model.configuration_json["hnsw"]
        assert made["space"] == "ip"
        assert {name: made[name] for name in hnsw} == hnsw
        found_of_best = 0
        for _ in range(20):
            query = random_query(rng)
            found, expected = (target.candidates(query, "dense", k=20) for target in (store, oracle))
            assert len(found) == 20
            assert dict(found) == pytest.approx(oracle.score(query, "dense", [id_ for id_, _ in found]), abs=1e-6)
            found_of_best += len({id_ for id_, _ in found} & {id_ for id_, _ in expected})
        assert found_of_best >= 0.95 * 20 * 20
        # More than there are, and under a filter: all of them.
        assert len(store.candidates(query, "dense", k=1000)) == 600
        filter = {"lang": "de"}
        found, expected = (target.candidates(query, "dense", k=1000, filter=filter) for target in (store, oracle))
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]


def test_options_of_the_graph_are_checked(path: Path) -> None:
    for bad in ({"space": 3}, {"ef_search": 1}, {"ef_search": "100"}, {"max_neighbors": True}):
        options: Any = bad
        with pytest.raises(InputError, match="ef_search, ef_construction, max_neighbors"):
            ChromaStore.create(path, MODEL, hnsw=options)
    assert not path.exists()


# Opening


def test_open_needs_an_index(path: Path) -> None:
    assert not ChromaStore.exists(path)
    with pytest.raises(IndexMissingError, match=str(path)):
        ChromaStore.open(path)
    assert not path.exists()


def test_open_or_create(path: Path, rng: np.random.Generator) -> None:
    for _ in range(2):
        with ChromaStore.open_or_create(path, MODEL) as store:
            filled(store, rng)
            assert store.count() == 5
            assert store.path == path
    assert ChromaStore.exists(path)
    with pytest.raises(InputError, match="already an index"):
        ChromaStore.create(path, MODEL)
    with pytest.raises(IndexMismatchError):
        ChromaStore.open_or_create(path, replace(MODEL, fingerprint="other"))


def test_collections_of_one_folder_are_apart(path: Path, rng: np.random.Generator) -> None:
    with (
        ChromaStore.create(path, MODEL, collection="one") as one,
        ChromaStore.create(path, MODEL, collection="two") as two,
    ):
        filled(one, rng)
        assert (one.count(), two.count()) == (5, 0)
    with ChromaStore.open(path, collection="one") as one:
        assert one.count() == 5


def test_a_client_of_the_callers(path: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    with chromadb.PersistentClient(path, settings=QUIET) as client:
        with pytest.raises(InputError, match="side="):
            ChromaStore.create(client, MODEL)
        with ChromaStore.create(client, MODEL, side=tmp_path / "side") as store:
            filled(store, rng)
        assert client.get_collection("m3rag", embedding_function=None).count() == 5
        with ChromaStore.open(client, side=tmp_path / "side") as store:
            assert store.count() == 5


def test_a_collection_of_others_is_not_written_to(path: Path, rng: np.random.Generator) -> None:
    with chromadb.PersistentClient(path, settings=QUIET) as client:
        client.create_collection("m3rag", embedding_function=None)
    with pytest.raises(InputError, match=r"already a collection 'm3rag'.*adopt"):
        ChromaStore.create(path, MODEL)
    assert not ChromaStore.exists(path)


def test_bad_places_are_refused(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("years of work")
    with pytest.raises(InputError, match="is a file"):
        ChromaStore.open_or_create(file, MODEL)
    for name in ("a", "a/b", "../up", "-ab", "ab-", "ä b", "x" * 201, ""):
        with pytest.raises(InputError, match="3 to 200"):
            ChromaStore.create(path, MODEL, collection=name)
    for url in ("http://", "http://host:port", "http://host/path", "http://host?x=1"):
        with pytest.raises(InputError, match="http"):
            ChromaStore.create(url, MODEL, side=path)
    assert file.read_text() == "years of work"


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"{url} cannot be opened.*running"):
            ChromaStore.create(url, MODEL, side=tmp_path)
    assert not ChromaStore.exists(url, side=tmp_path)


def test_a_creation_that_was_interrupted_is_finished(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("chroma_sync.ChromaItems.make", "side_legs.SideLegs.remember"):
        name = step.rsplit(".", 1)[1].lower()
        with monkeypatch.context() as patch:
            patch.setattr(f"m3rag.store.{step}", dies)
            with pytest.raises(KeyboardInterrupt):
                ChromaStore.create(path, MODEL, collection=name)
        with ChromaStore.open_or_create(path, MODEL, collection=name) as store:
            filled(store, rng)
            assert store.count() == 5


# Locks

OPENER = """
import sys
from m3rag.errors import IndexLockedError
from m3rag.store.chroma import ChromaStore
from m3rag.testing.data import MODEL
for name in ("m3rag", "other"):
    try:
        ChromaStore.open_or_create(sys.argv[1], MODEL, collection=name).close()
        print("opened")
    except IndexLockedError as error:
        print(error)
"""


def test_a_second_process_is_refused(path: Path, rng: np.random.Generator) -> None:
    command = [sys.executable, "-c", OPENER, str(path)]
    with ChromaStore.create(path, MODEL) as store:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert told.count(f"the index at {path} is in use by another process") == 2
        with pytest.raises(IndexLockedError, match="in use"):
            ChromaStore.open(path)
        filled(store, rng)
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == "opened\nopened\n"


def test_two_stores_of_one_side_on_a_server_are_refused(server: str, tmp_path: Path) -> None:
    with (
        ChromaStore.create(server, MODEL, side=tmp_path, collection="locked"),
        pytest.raises(IndexLockedError, match="in use"),
    ):
        ChromaStore.open(server, side=tmp_path, collection="locked")


# Damage


def test_a_collection_that_is_gone_is_named(path: Path, rng: np.random.Generator) -> None:
    with ChromaStore.create(path, MODEL) as store:
        filled(store, rng)
    for what in ("gone from", "replaced by another"):
        with chromadb.PersistentClient(path, settings=QUIET) as client:
            if what == "gone from":
                client.delete_collection("m3rag")
            else:
                client.create_collection("m3rag", embedding_function=None)
        with pytest.raises(StoreError, match=f"{what}.*ingest again"):
            ChromaStore.open(path)


def test_a_truncated_side_file_is_named(path: Path, rng: np.random.Generator) -> None:
    with ChromaStore.create(path, MODEL) as store:
        filled(store, rng, chunks=300)
    file = path / "m3rag-m3rag.sqlite3"
    whole = file.read_bytes()
    for length in (0, 10, 100, 4096, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"m3rag-m3rag\.sqlite3.*(ingest again|cannot be read)"):
            ChromaStore.open(path)
    file.write_bytes(whole)
    with ChromaStore.open(path) as store:
        assert store.count() == 300


def test_flipped_bits_are_never_taken_for_data(path: Path, rng: np.random.Generator) -> None:
    with ChromaStore.create(path, MODEL) as store:
        example = filled(store, rng, chunks=60)
    ids = [chunk.id for chunk in example.chunks]
    file = path / "m3rag-m3rag.sqlite3"
    whole = file.read_bytes()
    with ChromaStore.open(path) as store:
        expected = store.representations(ids)
    told = []
    for at in rng.integers(100, len(whole), 40).tolist():
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            with ChromaStore.open(path) as store:
                assert store.get(ids) == list(example.chunks)
                found = store.representations(ids)
        except StoreError as error:
            told.append(str(error))
        else:
            assert np.array_equal(found.dense, expected.dense)
            assert np.array_equal(found.colbert, expected.colbert)
            assert np.array_equal(found.lexical.toarray(), expected.lexical.toarray())
    assert len(told) >= 5
    assert all("m3rag-m3rag.sqlite3" in one for one in told)


def test_chromas_own_file_damaged_is_named_and_restored_without_a_new_process(path: Path) -> None:
    ChromaStore.create(path, MODEL).close()
    file = path / "chroma.sqlite3"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{path} cannot be opened .*malformed.*chroma\.sqlite3.*from a backup"):
            ChromaStore.open(path)
    file.write_bytes(content)
    ChromaStore.open(path).close()


def test_a_folder_that_may_not_be_written_to_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ChromaStore.create(path, MODEL).close()

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("m3rag.store.chroma_place.FileLock", refuses)
        with pytest.raises(StoreError, match=f"{path} cannot be opened .*needs write permission on {path}"):
            ChromaStore.open(path)
    ChromaStore.open(path).close()
