"""A SQLite file that a store keeps chunks in: connections, transactions, and damage that is named."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from m3rag.errors import StoreError

GROUP = 500  # parameters of one statement
BUSY = 5_000  # milliseconds to wait for who else writes

ROOM_BYTES = 128 << 20
"""What must be free on the disk before a write: a full one ended processes by SIGBUS with 40 MB."""

COPIES = 3
"""How often `VACUUM` writes what it keeps: to a file of its own, the log, and this file."""

META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"

MAPPED = 1 << 40
"""As much of a file is mapped into memory as SQLite allows, 2 GiB: token vectors are read in half the time."""


def groups(values: Sequence[Any], size: int = GROUP) -> Iterator[list[Any]]:
    """Values in lists of at most `size`: as many parameters as one statement may have."""
    for a in range(0, len(values), size):
        yield list(values[a : a + size])


class SqliteFile:
    """One SQLite file, written by one thread at a time and read by any number of them.

    A commit is on disk when it returns (`synchronous=FULL`). A reader sees the file as it was when
    it began, whatever is committed meanwhile.

    Args:
        path: The file.

    Raises:
        StoreError: If it is damaged.
    """

    page_size: ClassVar[int] = 4_096
    """Bytes of a new file's pages."""

    schema: ClassVar[str]
    """The statements that make its tables, beside `meta`."""

    remedy: ClassVar[str]
    """What to do where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checked: set[int] = set()  # rows whose checksums held: they are looked at once
        self._lock = threading.RLock()  # a signal's handler may close what its thread is reading
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = self._connect()
        try:
            with self.named_errors():
                if self.checkpoint():  # else a reader at work, of this process or another, keeps pages in the log
                    self._check_length()
        except BaseException:
            self._writer.close()
            raise

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> None:
        """Write an empty file, wholly or not at all.

        Raises:
            StoreError: If it cannot be written.
        """
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            connection = sqlite3.connect(partial, isolation_level=None)
            try:
                connection.execute(f"PRAGMA page_size = {cls.page_size}")
                connection.executescript(f"BEGIN; {META} {cls.schema}")
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
                connection.execute("COMMIT")
            finally:
                connection.close()
            partial.replace(path)
            if os.name != "nt":  # Windows cannot open a folder
                folder = os.open(path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreError(
                f"no index can be made at {path} ({error}): check that its folder may be written to, and that its disk "
                "has room"
            ) from error

    @contextmanager
    def writing(self, *, committing: AbstractContextManager[None] | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end (within `committing`), rolled back on any error."""
        with self.named_errors():
            self.require_open()
            self._roll_back()  # what a Ctrl-C left open
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                with committing or nullcontext():
                    self._writer.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def has_committed(self, key: str, value: str) -> bool:
        """Whether a key of the table `meta` has this value, and not by a transaction that is still open."""
        if self._writer.in_transaction:
            return False
        found = self._writer.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return bool(found == (value,))

    def _roll_back(self) -> None:
        if not self._closed and self._writer.in_transaction:  # a Ctrl-C may also come right after the commit
            self._writer.execute("ROLLBACK")

    def checkpoint(self, *, wait: float = 0) -> bool:
        """Bring everything from the log into the file, and empty the log; False where a reader at work needs it.

        Args:
            wait: Seconds to give readers to end.
        """
        self._roll_back()
        try:
            self._writer.execute(f"PRAGMA busy_timeout = {round(1000 * wait)}").fetchall()
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._writer.execute(f"PRAGMA busy_timeout = {BUSY}").fetchall()
        return not busy

    def log_size(self) -> int:
        """Bytes of the log, which only grows while readers follow one another without a gap."""
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def shrink(self) -> None:
        """Give the disk back what is free in the file, where that is more than half of it and there is room for a copy.

        Raises:
            StoreError: If the file is damaged, or cannot be written.
        """
        with self.named_errors():
            self._roll_back()
            free, pages, size = (
                self._writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("freelist_count", "page_count", "page_size")
            )
            kept = (pages - free) * size
            if 2 * free > pages and shutil.disk_usage(self.path.parent).free > COPIES * kept + ROOM_BYTES:
                self._writer.execute("VACUUM")
                self.checkpoint()

    def begin_reading(self) -> sqlite3.Connection:
        """A connection that sees the file as it is now, to be given to `reading`."""
        with self.named_errors():
            with self._lock:
                self.require_open()
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM meta LIMIT 1").fetchall()  # only a read fixes what is seen
            except BaseException:
                connection.close()
                raise
            return connection

    @contextmanager
    def reading(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Read by what `begin_reading` gave, and give it back."""
        try:
            with self.named_errors():
                yield
        except BaseException:
            connection.close()  # what an error left unfinished, and keeps, would see the same moment for ever
            raise
        self._end_reading(connection)

    def _end_reading(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:  # an error of the disk has ended it
            connection.execute("ROLLBACK")
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the file. Readers at work finish. Closing twice is not an error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._idle:
                connection.close()
            self._writer.close()

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into those that name the file and the remedy."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if self._closed:  # by another thread, or in a signal's handler
                raise self._shut() from error
            if not isinstance(error, sqlite3.OperationalError):
                raise self.damaged(str(error)) from error
            if "no such" in str(error):  # table or column
                raise self.damaged(str(error)) from error
            raise StoreError(f"{self.path} cannot be read or written: {error}") from error

    def require_open(self) -> None:
        """Refuse to go on after `close`.

        Raises:
            StoreError: If the file was closed.
        """
        if self._closed:
            raise self._shut()

    def _shut(self) -> StoreError:
        return StoreError(f"the index with the file {self.path} is closed: open it again")

    def damaged(self, what: str) -> StoreError:
        """The error of a damaged file."""
        return StoreError(f"{self.path} is damaged ({what}): {self.remedy}")

    def _connect(self) -> sqlite3.Connection:
        with self.named_errors():
            # mode=rw: a file that vanished is not made anew, empty.
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY / 1000,
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA cache_size = -65536")  # 64 MiB
                connection.execute(f"PRAGMA mmap_size = {MAPPED}").fetchall()
            except BaseException:
                connection.close()
                raise
            return connection

    def _check_length(self) -> None:
        """A file cut short would else be found out by the first chunk that lay behind the cut."""
        (pages,) = self._writer.execute("PRAGMA page_count").fetchone()
        (size,) = self._writer.execute("PRAGMA page_size").fetchone()
        if self.path.stat().st_size < pages * size:
            raise self.damaged(f"{self.path.stat().st_size} bytes of {pages * size}")
