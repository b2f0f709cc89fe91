"""DiskCache: an embedding cache in one file that several processes may share."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from m3rag.encoder.cache import CacheStats
from m3rag.encoder.cache_file import damaged, explained, open_file, transaction, used_bytes
from m3rag.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self

KEYS_PER_QUERY = 250
TRANSACTION_BYTES = 16 * 2**20  # so that other processes need not wait long
USES_KEPT_BACK = 1_000  # a use is noted in memory first: a write for each read would cost more than the read
EVICTED_AT_ONCE = 1_000
LEAST_BYTES = 2**20  # an empty file has five pages already
FULL_SHARE = 0.9  # evicting down to a little less than the budget keeps eviction rare

# A connection must be neither used nor closed in a forked child, so these are kept for ever.
_connections_of_parents: list[sqlite3.Connection] = []


class DiskCache:
    """Values in a file, for as long as its budget allows; see `EmbeddingCache`.

    Threads may share one object, and any number of processes may each open the same file on a
    local disk (not on a network share: SQLite's write-ahead log needs shared memory). A process
    that is killed leaves nothing half-written. Values carry a checksum.

    Args:
        path: The file; it and its folder are made if they are missing. Beside it SQLite keeps
            `-wal` and `-shm` while the file is in use.
        max_bytes: Most bytes of the file's used part; when it is exceeded, the least recently used
            values are removed down to 90 % of it. A value that is larger alone is not held. The file
            itself never shrinks (its free part is used again), and the `-wal` file takes up to 64 MiB more.
        timeout: Seconds to wait for another process that is writing.
        clock: Gives the time in seconds, the same in all processes.

    Raises:
        ConfigurationError: If `max_bytes` is less than 1 MiB.
        InputError: If the path is a folder, or a database of something else.
        StoreError: If the file is damaged, of a newer m3rag, or cannot be made or written. Every
            other method raises it too.

    Example:
        >>> with DiskCache("embeddings.cache", max_bytes=10 * 2**30) as cache:
        ...     encoder = CachedEncoder(M3Encoder("mini"), cache)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = 10 * 2**30,
        timeout: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < LEAST_BYTES:
            raise ConfigurationError(f"max_bytes must be at least {LEAST_BYTES:,}, got {max_bytes:,}")
        self.path = Path(path).expanduser().absolute()
        self.max_bytes = max_bytes
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._uses: dict[bytes, float] = {}
        self._hits = self._misses = 0
        self._connection = open_file(self.path, timeout=timeout)
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Callable[[], DiskCache], tuple[()]]:
        again = partial(type(self), self.path, max_bytes=self.max_bytes, timeout=self._timeout, clock=self._clock)
        return again, ()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are held, by key; keys that are not held are left out."""
        found: dict[bytes, bytes] = {}
        with self._session() as connection:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                found.update(self._read(connection, keys[start : start + KEYS_PER_QUERY]))
            hits = sum(key in found for key in keys)
            self._hits += hits
            self._misses += len(keys) - hits
            self._uses.update(dict.fromkeys(found, self._clock()))
            if len(self._uses) >= USES_KEPT_BACK:
                with transaction(connection):
                    self._note_uses(connection)
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Hold values, and remove the least recently used if the budget is exceeded."""
        with self._session() as connection:
            # One that is larger alone would drive out all others and then itself.
            kept = {key: value for key, value in values.items() if len(value) <= self.max_bytes * FULL_SHARE}
            for part in _parts(kept):
                with transaction(connection):
                    self._note_uses(connection)
                    for key, value in part:
                        self._insert(connection, key, value)
                if used_bytes(connection) > self.max_bytes:
                    while self._evict(connection):
                        pass

    def stats(self) -> CacheStats:
        """Hits and misses of this object so far; entries and bytes of the file now."""
        with self._session() as connection:
            (entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
            return CacheStats(self._hits, self._misses, entries, used_bytes(connection))

    def close(self) -> None:
        """Note the last uses and close the file; the object cannot be used any more."""
        with self._session() as connection:
            try:
                if self._uses:
                    with transaction(connection):
                        self._note_uses(connection)
            finally:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time."""
        with self._lock, explained(self.path, timeout=self._timeout):
            if self._process != os.getpid():
                _connections_of_parents.append(self._connection)
                self._connection = open_file(self.path, timeout=self._timeout)
                self._process, self._uses = os.getpid(), {}
            yield self._connection

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, crc, value FROM entries LEFT JOIN vectors USING (id) WHERE key IN ({marks})"
        found = {}
        for key, crc, value in connection.execute(query, keys):
            if value is None or zlib.crc32(value) != crc:
                raise damaged(self.path, "a value does not match its checksum")
            found[key] = value
        return found

    def _insert(self, connection: sqlite3.Connection, key: bytes, value: bytes) -> None:
        # Another process may have been faster: its value is the same.
        inserted = connection.execute(
            "INSERT OR IGNORE INTO entries (key, size, crc, used) VALUES (?, ?, ?, ?)",
            (key, len(value), zlib.crc32(value), self._clock()),
        )
        if inserted.rowcount:
            connection.execute("INSERT INTO vectors VALUES (?, ?)", (inserted.lastrowid, value))

    def _note_uses(self, connection: sqlite3.Connection) -> None:
        uses, self._uses = self._uses, {}
        connection.executemany(
            "UPDATE entries SET used = max(used, ?) WHERE key = ?", ((when, key) for key, when in uses.items())
        )

    def _evict(self, connection: sqlite3.Connection) -> bool:
        """Remove some of what is above the budget; whether there was any."""
        with transaction(connection):
            excess = used_bytes(connection) - self.max_bytes * FULL_SHARE
            query = "SELECT id, size FROM entries ORDER BY used, id LIMIT ?"
            ids = []
            for id, size in connection.execute(query, (EVICTED_AT_ONCE,)).fetchall():
                if excess <= 0:
                    break
                ids.append((id,))
                excess -= size
            connection.executemany("DELETE FROM vectors WHERE id = ?", ids)
            connection.executemany("DELETE FROM entries WHERE id = ?", ids)
        return bool(ids)


def _parts(values: Mapping[bytes, bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
    """The items in parts of one short transaction each."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in values.items():
        part.append((key, value))
        size += len(value)
        if size >= TRANSACTION_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
