"""The content hashes of files, remembered by size and times so that an unchanged file need not be read."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from m3rag.encoder.cache_file import transaction
from m3rag.errors import StoreError

FORMAT = 1
SETTLED = 2_000_000_000  # ns: within this of being looked at, a file may change without another time
WRITE_EVERY = 1_000  # files
BLOCK = 1 << 20  # bytes

SCHEMA = f"""
CREATE TABLE files (path BLOB PRIMARY KEY, signature BLOB NOT NULL, seen INTEGER NOT NULL, digest BLOB NOT NULL)
WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""

# A thread must not delete as damaged what another has made anew in its place.
_renewing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Looked:
    """A file as it was when it was looked at."""

    signature: bytes
    changed: int
    seen: int

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Looked:
        """Look at a file.

        Raises:
            OSError: It cannot be looked at.
        """
        seen = time.time_ns()
        found = os.stat(path)
        signature = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev} {found.st_ino}"
        return cls(signature.encode(), max(found.st_mtime_ns, found.st_ctime_ns), seen)


class FileHashes:
    """SHA-256 of files; one whose size, times and inode are those of the last time is not read again.

    What is remembered is only ever a shortcut: without its file, or where that is damaged, files are
    read. A file that had changed less than 2 s before it was looked at is read the next time too, as
    a second change may have left size and time alone.

    Args:
        path: The SQLite file of what is remembered; None to remember nothing.
        writable: Whether to remember anything new.
    """

    def __init__(self, path: Path | None, *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable and path is not None
        self._new: dict[bytes, tuple[bytes, int, bytes]] = {}
        self._gone: list[bytes] = []
        self._connection = None if path is None else self._opened(path)

    def of(self, path: Path) -> str:
        """The hash of a file's content, 64 hex digits.

        Raises:
            OSError: It cannot be read.
        """
        looked = Looked.at(path)
        key = os.fsencode(path.absolute())
        known = self._known(key)
        if known is not None and known[0] == looked.signature and looked.changed <= known[1] - SETTLED:
            return known[2].hex()
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
        self._new[key] = (looked.signature, looked.seen, digest.digest())
        if len(self._new) >= WRITE_EVERY:
            self.write()
        return digest.hexdigest()

    def forget(self, path: Path) -> None:
        """Drop what is remembered of a file that is gone."""
        self._gone.append(os.fsencode(path))

    def write(self) -> None:
        """Remember, in one short transaction, what is new."""
        if self._connection is not None and self._writable:
            rows = [(key, *value) for key, value in self._new.items()]
            try:
                with transaction(self._connection):
                    self._connection.executemany("DELETE FROM files WHERE path = ?", [(key,) for key in self._gone])
                    self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                raise _explained(self._path, error) from error
        self._new.clear()
        self._gone.clear()

    def close(self) -> None:
        """Write what is new, and release the file. Closing twice is not an error."""
        if self._connection is not None:
            try:
                self.write()
            finally:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> FileHashes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, key: bytes) -> tuple[bytes, int, bytes] | None:
        if key in self._new:
            return self._new[key]
        if self._connection is None:
            return None
        try:
            found = self._connection.execute("SELECT signature, seen, digest FROM files WHERE path = ?", (key,))
            row: tuple[bytes, int, bytes] | None = found.fetchone()
        except sqlite3.Error as error:
            raise _explained(self._path, error) from error
        return row

    def _opened(self, path: Path) -> sqlite3.Connection | None:
        if not self._writable:
            try:
                return _connected(path, make=False) if path.exists() else None
            except (sqlite3.Error, OSError):
                return None
        try:
            try:
                return _connected(path, make=True)
            except sqlite3.Error as error:
                if not _is_damaged(error):
                    raise
            return _made_anew(path)
        except (sqlite3.Error, OSError) as error:
            raise _explained(path, error) from error


def _connected(path: Path, *, make: bool) -> sqlite3.Connection | None:
    """A connection to a file that has our table, which is made if it may be; else None.

    Raises:
        sqlite3.Error: It cannot be opened, or is damaged.
    """
    with ExitStack() as stack:
        # Most stores let one process in at a time; threads of it, and processes of the others, take turns here.
        connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
        stack.callback(connection.close)
        if make:
            _make(connection)
        elif not _is_ours(connection):
            return None
        stack.pop_all()
        return connection


def _made_anew(path: Path) -> sqlite3.Connection | None:
    """A connection to a file that was found damaged, and is deleted if another thread has not done so."""
    with _renewing:
        try:
            return _connected(path, make=True)
        except sqlite3.Error as error:
            if not _is_damaged(error):
                raise
        for file in (path, path.with_name(path.name + "-journal")):
            file.unlink(missing_ok=True)
        return _connected(path, make=True)


def _is_damaged(error: sqlite3.Error) -> bool:
    """Whether it is the file's fault: not that of another writer, or of the disk."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _make(connection: sqlite3.Connection) -> None:
    """Make our table where it is missing, or is of another format."""
    if _is_ours(connection):
        return
    with transaction(connection):
        if not _is_ours(connection):  # another thread or process may have been faster
            connection.execute("DROP TABLE IF EXISTS files")
            for statement in SCHEMA.split(";"):
                connection.execute(statement)


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Whether a file has our table, of this format; a new one has none."""
    try:
        connection.execute("SELECT path, signature, seen, digest FROM files LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            return False
        raise
    return bool(connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT)


def _explained(path: Path | None, error: Exception) -> StoreError:
    """The error that names the file and the remedy."""
    if "locked" in str(error):
        return StoreError(f"{path}: {error}; end the other process that has been writing to it for a minute")
    return StoreError(
        f"{path}: {error}; check the permissions of its folder and the room on its disk, or delete the file, "
        "it is made again"
    )
