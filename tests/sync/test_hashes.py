from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from m3rag.sync import hashes
from m3rag.sync.hashes import FileHashes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("one")
    return path


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def settle(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time go on, for those who look at files."""
    now = time.time_ns
    monkeypatch.setattr(hashes.time, "time_ns", lambda: now() + int(seconds * 1e9))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened from now on."""
    found: list[str] = []

    def recording(path, *arguments, **options):
        found.append(str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(hashes, "open", recording, raising=False)
    return found


def test_an_unchanged_file_is_read_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, 3)
    read = opened(monkeypatch)
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha("one")
        assert known.of(file) == sha("one")
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha("one")
    assert read == [str(file)]


def test_a_file_just_written_is_not_trusted(file: Path, tmp_path: Path) -> None:
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha("one")
        looked = file.stat()
        file.write_text("two")  # the same size
        os.utime(file, ns=(looked.st_atime_ns, looked.st_mtime_ns))
        assert known.of(file) == sha("two")


@pytest.mark.parametrize("how", ["size", "time", "inode"])
def test_any_change_is_seen(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    os.utime(file, (1_000_000_000, 1_000_000_000))
    settle(monkeypatch, 3)
    with FileHashes(tmp_path / "h.sqlite") as known:
        known.of(file)
    text = "two and more" if how == "size" else "two"
    if how == "inode":
        (tmp_path / "other").write_text(text)
        os.replace(tmp_path / "other", file)
    else:
        file.write_text(text)
    if how != "time":
        os.utime(file, (1_000_000_000, 1_000_000_000))
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha(text)


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\x00" + b"x" * 4096, b""])
def test_a_damaged_file_is_made_again(file: Path, tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(damage)
    with FileHashes(path, writable=False) as known:
        assert known.of(file) == sha("one")
    assert path.read_bytes() == damage
    with FileHashes(path) as known:
        assert known.of(file) == sha("one")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)
    connection.close()


def test_nothing_is_written_where_nothing_may_be(file: Path, tmp_path: Path) -> None:
    with FileHashes(tmp_path / "h.sqlite", writable=False) as known:
        assert known.of(file) == sha("one")
    assert not (tmp_path / "h.sqlite").exists()
    with FileHashes(None) as known:
        assert known.of(file) == sha("one")


def test_what_is_gone_is_forgotten(file: Path, tmp_path: Path) -> None:
    with FileHashes(tmp_path / "h.sqlite") as known:
        known.of(file)
        known.write()
        known.forget(file)
    with sqlite3.connect(tmp_path / "h.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)
    connection.close()
