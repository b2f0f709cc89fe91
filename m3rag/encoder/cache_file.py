"""The SQLite file of a `DiskCache`: made, opened, checked to be ours, its errors told as ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m3rag.errors import InputError, StoreError

APPLICATION = int.from_bytes(b"m3ec", "big")
FORMAT = 1

# Values stand in a table of their own, so that noting a use does not rewrite 40 KB.
SCHEMA = f"""
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        used REAL NOT NULL
    );
    CREATE TABLE vectors (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {FORMAT};
"""

PAGE_BYTES = 16_384  # fewer links to follow than with 4 KB, and at 40 KB a value 7 % of room lost
LOG_BYTES = 64 * 2**20


def open_file(path: Path, *, timeout: float) -> sqlite3.Connection:
    """Open the file, and make it and its folder if they are missing.

    Args:
        path: Of the file.
        timeout: Seconds to wait for other processes, now and later.

    Raises:
        InputError: If the path is a folder, or a database of something else.
        StoreError: If the file is damaged, of a newer m3rag, or cannot be made or written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file for the embedding cache")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"no embedding cache can be made at {path} ({error}): give a file in a folder you may write to"
        ) from error
    with explained(path, timeout=timeout):
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, timeout)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the writes within, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    query = (
        "SELECT (page_count - freelist_count) * page_size"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    )
    (used,) = connection.execute(query).fetchone()
    return int(used)


@contextmanager
def explained(path: Path, *, timeout: float) -> Iterator[None]:
    """Turn SQLite's errors into a StoreError that names the file and the remedy."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        if "closed" not in str(error):
            raise
        raise StoreError(f"the embedding cache {path} is closed: open it again") from error
    except sqlite3.OperationalError as error:
        reason = str(error)
        if "malformed" in reason or "no such" in reason:
            raise damaged(path, reason) from error
        if "locked" in reason:
            remedy = f"another process has been writing to it for {timeout:g} s: end it, or give another file"
        elif "full" in reason:
            remedy = "free some room on its disk, or give a file on another disk"
        else:
            remedy = "check that its folder may be written to and its disk has room, or give another file"
        raise StoreError(f"the embedding cache {path} cannot be used ({reason}): {remedy}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> StoreError:
    """The error that says so; nothing is deleted, that is for the user to do."""
    return StoreError(
        f"the embedding cache {path} is damaged ({reason}): delete it with its -wal and -shm files, "
        "or give another file; what it held will be encoded anew"
    )


def _prepare(connection: sqlite3.Connection, path: Path, timeout: float) -> None:
    application, version, tables = _identity(connection)
    if tables and application != APPLICATION:
        raise InputError(f"{path} is a database of something else: give another file for the embedding cache")
    if version > FORMAT:
        raise StoreError(
            f"the embedding cache {path} has format {version}, this m3rag reads up to {FORMAT}: "
            "upgrade it (pip install -U m3rag), or give another file"
        )
    if not tables:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    _use_write_ahead_log(connection, path, timeout)
    # With the log this loses at most the last writes when the power fails, and damages nothing.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
    if not tables:
        with transaction(connection):
            if not _identity(connection)[2]:  # another process may have been faster
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)


def _identity(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Application id, format and number of tables, all of one moment."""
    query = (
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),"
        " (SELECT count(*) FROM sqlite_master)"
    )
    application, version, tables = connection.execute(query).fetchone()
    return application, version, tables


def _use_write_ahead_log(connection: sqlite3.Connection, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself where two processes change the mode at once.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreError(f"the embedding cache {path} cannot be used: give a file on a local disk, this one is none")
