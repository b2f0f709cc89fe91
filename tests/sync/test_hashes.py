from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import StoreError
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


@pytest.mark.parametrize("left", ["CREATE TABLE files (path, name)", hashes.SCHEMA.split(";")[0]])
def test_another_format_and_what_was_half_made_are_made_again(file: Path, tmp_path: Path, left: str) -> None:
    with closing(sqlite3.connect(tmp_path / "h.sqlite")) as connection:
        connection.execute(left)
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha("one")
    with closing(sqlite3.connect(tmp_path / "h.sqlite")) as connection:
        assert connection.execute("SELECT count(digest), user_version FROM files, pragma_user_version").fetchone() == (
            1,
            hashes.FORMAT,
        )


def test_a_file_that_another_makes_at_the_same_time_is_shared(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch, 3)
    read = opened(monkeypatch)
    connect = sqlite3.connect

    class Slower(sqlite3.Connection):
        """Finds no table, and another one has made it before it can."""

        def overtaken(self) -> None:
            if hashes.sqlite3.connect is not connect:
                monkeypatch.setattr(hashes.sqlite3, "connect", connect)
                with FileHashes(tmp_path / "h.sqlite") as other:
                    other.of(file)

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN"):
                self.overtaken()
            return super().execute(sql, *arguments)

        def executescript(self, script: str) -> sqlite3.Cursor:
            self.overtaken()
            return super().executescript(script)

    monkeypatch.setattr(hashes.sqlite3, "connect", partial(connect, factory=Slower))
    with FileHashes(tmp_path / "h.sqlite") as known:
        assert known.of(file) == sha("one")
    assert read == [str(file)]


def test_a_file_that_another_keeps_locked_is_not_taken_for_damaged(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, connect = tmp_path / "h.sqlite", sqlite3.connect
    monkeypatch.setattr(hashes.sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0}))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"h\.sqlite: database is locked; end the other process"):
            FileHashes(path)
        with FileHashes(path, writable=False) as known:
            assert known.of(file) == sha("one")
        other.execute("CREATE TABLE kept (row)")
        other.execute("COMMIT")
        assert other.execute("SELECT * FROM kept").fetchall() == []
    with closing(connect(path)) as again:
        assert again.execute("SELECT * FROM kept").fetchall() == []


def test_a_damaged_file_that_another_has_made_again_is_kept(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(b"no database")
    renew = hashes._made_anew

    def later(path: Path) -> sqlite3.Connection | None:
        monkeypatch.setattr(hashes, "_made_anew", renew)
        with FileHashes(path) as other:
            other.of(file)
        return renew(path)

    monkeypatch.setattr(hashes, "_made_anew", later)
    FileHashes(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"h\.sqlite: unable to open .*; check the permissions of its folder"):
        FileHashes(tmp_path / "none" / "h.sqlite")


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
