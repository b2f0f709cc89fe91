from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m3rag.collection import Collection
from m3rag.errors import IndexLockedError, IndexMismatchError, StoreError
from m3rag.opened import SharedPlace, shared_place
from m3rag.settings import Settings
from m3rag.store import edge_folder
from m3rag.store.edge_seal import SEAL
from m3rag.store.place import place_of
from m3rag.testing import HashEncoder
from m3rag.types import Chunk


def collection(index: str | Path, *, dense_dim: int = 32) -> Collection:
    return Collection(index, encoder=HashEncoder(dense_dim=dense_dim), settings=Settings())


def chunk(id: str) -> Chunk:
    text = f"Ducks swim, {id}."
    return Chunk(id, id, text, 0, len(text))


def found(one: Collection) -> list[str]:
    return [record.id for record in one.documents()]


@pytest.fixture(params=["{}", "chroma:{}", "chroma:{}?collection=birds"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if "chroma" in request.param:
        pytest.importorskip("chromadb", reason="chromadb is not installed")
    return request.param.format(tmp_path / "index")


def test_the_last_to_close_releases_what_all_share(index: str) -> None:
    one, other = collection(index), collection(index)
    one.upsert([chunk("a")])
    other.upsert([chunk("b")])
    assert found(one) == found(other) == ["a", "b"]
    one.close()
    one.close()
    assert [hit.chunk.id for hit in other.search("b", k=1)] == ["b"]
    with pytest.raises(IndexLockedError):
        place_of(index).open()
    other.close()
    with place_of(index).open() as alone:
        assert [record.id for record in alone.documents()] == ["a", "b"]


FORKING = """
import os, signal, sys
from m3rag.errors import IndexLockedError
from test_opened import chunk, collection, found

index = sys.argv[1]
with collection(index) as one:
    one.upsert([chunk("a")])
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # else it might wait for ever for threads that are not there
        for asked in (one, collection(index)):
            try:
                asked.store.count()
            except IndexLockedError as error:
                print(error, flush=True)
            asked.close()
        os._exit(0)
    os.waitpid(child, 0)
    one.upsert([chunk("b")])
    print(found(one))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_no_part_in_what_is_open(index: str) -> None:
    # In a process of its own: the threads that other tests leave here (gRPC's) are none to fork beside.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, index]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    inherited, anew, ours = done.stdout.splitlines()
    assert "open in the process that this one was forked from: close it there" in inherited
    assert anew
    assert ours == "['a', 'b']"


def test_who_closed_opens_it_again(index: str) -> None:
    with collection(index) as one, collection(index) as other:
        one.upsert([chunk("a")])
        kept = one.store
        one.close()
        assert found(one) == found(other) == ["a"]
        one.close()
        other.close()
        with pytest.raises(StoreError, match="closed"):
            kept.documents()
        assert found(one) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("the disk is full")])
def test_a_close_that_is_broken_off_releases_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken_off(*_args: object, **_options: object) -> None:
        raise error

    one = collection(tmp_path / "index")
    one.upsert([chunk("a")])
    with monkeypatch.context() as patch:
        patch.setattr(edge_folder, "write_seal", broken_off)
        # Notebooks keep the last traceback, and with it all that its frames hold.
        with pytest.raises(type(error)) as kept:
            one.close()
    assert found(one) == ["a"]
    one.close()
    with place_of(tmp_path / "index").open() as alone:
        assert [record.id for record in alone.documents()] == ["a"]
    assert kept.tb is not None


def test_who_lets_go_without_closing_counts_no_more(tmp_path: Path) -> None:
    one, other = collection(tmp_path / "index"), collection(tmp_path / "index")
    one.upsert([chunk("a")])
    assert found(other) == ["a"]
    del one
    gc.collect()
    other.close()
    with place_of(tmp_path / "index").open() as alone:
        assert [record.id for record in alone.documents()] == ["a"]


def test_another_model_is_refused_and_changes_nothing(index: str) -> None:
    with collection(index) as one, collection(index, dense_dim=16) as other:
        one.upsert([chunk("a")])
        with pytest.raises(IndexMismatchError, match="was made"):
            other.upsert([chunk("b")])
        with pytest.raises(IndexMismatchError, match="was made by model"):
            other.place.open(HashEncoder(dense_dim=16).info)
        assert found(one) == ["a"]


def test_a_folder_is_one_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    names = ["index", str(tmp_path / "index"), "elsewhere/../index"]
    if os.name == "posix":
        (tmp_path / "link").symlink_to(tmp_path / "index")
        names.append("link")
    opened = [collection(name) for name in names]
    opened[0].upsert([chunk("a")])
    assert [found(one) for one in opened] == [["a"]] * len(names)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with collection("index") as another:
        assert not another.exists
    for one in opened:
        one.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_an_index_that_was_deleted_and_made_anew_is_another(tmp_path: Path) -> None:
    old = collection(tmp_path / "index")
    old.upsert([chunk("old")])
    shutil.rmtree(tmp_path / "index")
    new = collection(tmp_path / "index")
    assert not new.exists
    new.upsert([chunk("new")])
    assert found(new) == ["new"]
    old.close()
    assert not (tmp_path / "index" / SEAL).exists(), "an index that is open has no seal"
    with collection(tmp_path / "index") as third:
        assert found(third) == ["new"]
    new.close()
    with place_of(tmp_path / "index").open() as alone:
        assert [record.id for record in alone.documents()] == ["new"]


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_llama_index_makes_anew_what_was_deleted(tmp_path: Path) -> None:
    llama_index = pytest.importorskip("m3rag.llama_index", reason="llama-index-core is not installed")
    schema = pytest.importorskip("llama_index.core.schema")
    node = schema.TextNode(id_="n", text="Ducks.", embedding=[1.0, 0.0])
    old = llama_index.M3VectorStore(index=tmp_path / "index", dense_dim=2)
    old.add([node])
    shutil.rmtree(tmp_path / "index")
    new = llama_index.M3VectorStore(index=tmp_path / "index", dense_dim=2)
    assert new.get_nodes() == []
    new.add([node])
    assert (tmp_path / "index").exists()
    new.client.close()


def test_threads_make_and_leave_one_index(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for turn in range(3):
            with collection(tmp_path / "index") as one:
                one.upsert([chunk(f"{number}-{turn}")])
                assert f"{number}-{turn}" in found(one)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    with place_of(tmp_path / "index").open() as alone:
        assert len(alone.documents()) == 24


def test_what_many_may_open_stays_as_it_is(tmp_path: Path) -> None:
    settings = Settings(index=str(tmp_path / "index"))
    for index in (":memory:", "http://localhost:6333/birds"):
        assert not isinstance(shared_place(index, settings), SharedPlace)
    place = shared_place(None, settings)
    assert isinstance(place, SharedPlace)
    assert place.name == settings.index
    assert shared_place(place, settings) is place
    assert isinstance(shared_place("chroma+http://localhost:8000/birds?side=side", settings), SharedPlace)
