"""The seal of a closed index: a file that was cut, changed or lost is named at the next open."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import IndexLockedError, StoreError
from m3rag.store import QdrantEdgeStore
from m3rag.store.edge_folder import SHARD
from m3rag.store.edge_seal import DIGEST_UP_TO, SEAL
from m3rag.testing.data import MODEL, Example, random_document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def example() -> Example:
    return random_document(np.random.default_rng(3), "a.md", chunks=40)


@pytest.fixture
def closed(path: Path, example: Example) -> Path:
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts(size=10))
    return path


@contextmanager
def replaced(file: Path, content: bytes | None) -> Iterator[None]:
    """A file with other content, or (None) none; the old one is back afterwards."""
    aside = file.with_name(file.name + ".aside")
    file.rename(aside)
    if content is not None:
        file.write_bytes(content)
    yield
    file.unlink(missing_ok=True)
    aside.rename(file)


def damages(file: Path) -> Iterator[bytes | None]:
    """Nothing, an empty file, half of it, and (of files that have digests) one with a bit flipped."""
    yield None
    size = file.stat().st_size
    if size:
        with file.open("rb") as opened:
            yield from (b"", opened.read(min(size // 2, 1000)))
    if 0 < size <= DIGEST_UP_TO:
        content = bytearray(file.read_bytes())
        content[size // 2] ^= 0x10
        yield bytes(content)


def test_every_damaged_file_is_named(closed: Path, example: Example) -> None:
    files = [
        file for file in sorted((closed / SHARD).rglob("*")) if file.is_file() and file.parent != closed / SHARD / "wal"
    ]
    tried = 0
    for file in files:
        for content in damages(file):
            with replaced(file, content):
                with pytest.raises(StoreError) as caught:
                    QdrantEdgeStore.open(closed, MODEL)
                assert str(file) in str(caught.value)
                assert "restore it from a backup" in str(caught.value)
                tried += 1
    assert len(files) > 50
    assert tried > 2 * len(files)
    with QdrantEdgeStore.open(closed, MODEL) as store:
        assert store.chunks_of("a.md") == list(example.chunks)


def test_a_damaged_log_harms_nothing_or_is_named(closed: Path, example: Example) -> None:
    files = sorted((closed / SHARD / "wal").iterdir())
    assert len(files) >= 2
    for file in files:
        for content in damages(file):
            copy = closed.with_name("copy.index")
            # A plain copy would write the holes of the engine's files out.
            subprocess.run(["cp", "-r", "--sparse=always", str(closed), str(copy)], check=True)
            with replaced(copy / file.relative_to(closed), content):
                told = ""
                try:
                    with QdrantEdgeStore.open(copy, MODEL) as store:
                        found = store.chunks_of("a.md")
                        kept = store.representations([chunk.id for chunk in example.chunks])
                except StoreError as error:
                    told = str(error)
                if told:
                    assert str(copy) in told
                    assert "restore it from a backup" in told
                else:
                    assert found == list(example.chunks)
                    assert np.array_equal(kept.dense, example.output.dense)
            shutil.rmtree(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": 1}', b'{"shard/absent": [1, null]}', b'{"\xad": 1}'])
def test_a_damaged_seal_is_named(closed: Path, content: bytes) -> None:
    (closed / SEAL).write_bytes(content)
    with pytest.raises(StoreError, match=rf"damaged: .*({SEAL} is no list|absent is missing).*delete {SEAL}"):
        QdrantEdgeStore.open(closed, MODEL)
    (closed / SEAL).unlink()
    QdrantEdgeStore.open(closed, MODEL).close()


def test_without_a_seal_the_engines_own_errors_and_panics_are_store_errors(closed: Path) -> None:
    (closed / SEAL).unlink()
    (cut,) = (closed / SHARD / "segments").glob("*/vector_storage-dense/vectors/status.dat")
    cut.write_bytes(b"")
    # The engine panics in a process of its own, since it writes a trace to the terminal.
    script = (
        "import sys\nfrom m3rag.store import QdrantEdgeStore\nfrom m3rag.errors import StoreError\n"
        "try:\n    QdrantEdgeStore.open(sys.argv[1])\nexcept StoreError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(closed)], capture_output=True, text=True, check=True)
    assert f"{closed} cannot be opened" in done.stdout


def test_an_open_or_killed_index_has_no_seal(closed: Path, example: Example) -> None:
    with QdrantEdgeStore.open(closed, MODEL):
        assert not (closed / SEAL).exists()
        with pytest.raises(IndexLockedError):
            QdrantEdgeStore.open(closed, MODEL)
    assert (closed / SEAL).exists()
    if os.name != "nt":
        script = (
            "import os, signal, sys\nfrom m3rag.store import QdrantEdgeStore\n"
            "store = QdrantEdgeStore.open(sys.argv[1])\nstore.delete_chunks(['a.md@v1#0'])\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        killed = subprocess.run([sys.executable, "-c", script, str(closed)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert not (closed / SEAL).exists()
        with QdrantEdgeStore.open(closed, MODEL) as store:
            assert store.count() == 39
