"""The token vectors of an index in a folder: `tokens.sqlite` beside the engine's files, a row a chunk.

The engine could keep them, too. From here they are scored in half its time and without Python's interpreter lock, in
any codec, and the engine's log, its segments and their merging have a tenth of the bytes.

A chunk's point names its row. Rows are on disk before the point that names them is written, never change, and go only
once no point on disk names them: whatever interrupts a change leaves rows that nothing names, and never a point without
its row. What nothing names is removed now and then.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from m3rag.output import M3Output
from m3rag.store.codec import codec_named
from m3rag.store.protocol import Manifest
from m3rag.store.side_legs_rows import checksum
from m3rag.store.sqlite_file import SqliteFile, groups
from m3rag.store.token_rows import TokenRows

TOKENS = "tokens.sqlite"

UNNAMED = 0.25
"""Rows that nothing names, as a share of the chunks, from which on they are removed; and at least:"""

UNNAMED_AT_LEAST = 1_000

ROWS_A_MILLISECOND = 20
"""Bits: rows are numbered from the millisecond in which the file was opened, so that no number comes twice."""

LOG_BYTES = 32 << 20
"""Of the file's log, from which on a writer waits for readers to end, so that it can be emptied."""

READERS_END = 1.0  # seconds


class TokenFile(SqliteFile):
    """The file; what it is read for stands in `EdgeTokens`."""

    # Beyond what is mapped blobs are read page by page, of SQLite's usual 4,096 bytes in two to three times the time.
    page_size: ClassVar[int] = 16_384

    # Rows are counted and listed by the index on them: the table itself is as large as all the vectors.
    schema: ClassVar[str] = """
CREATE TABLE legs (
    row INTEGER PRIMARY KEY,
    colbert BLOB NOT NULL,
    colbert_checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX rows ON legs (row);
"""
    remedy: ClassVar[str] = "restore the index's folder from a backup, or delete it and ingest again"


class EdgeTokens:
    """The token vectors of an index. Writers are serialised by the caller; readers are not.

    Args:
        path: The file that `TokenFile.create` made.
        manifest: The index's model and codec.

    Raises:
        StoreError: If the file is not there, or is damaged.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._file = TokenFile(path)
        self._model, self._codec = manifest.model, codec_named(manifest.codec)
        try:
            with self._file.writing() as connection:
                connection.execute("PRAGMA secure_delete = OFF").fetchall()  # or a removal writes ten times as much
                counted = connection.execute("SELECT count(*), coalesce(max(row), 0) FROM legs")
                self._rows, last = map(int, counted.fetchone())
        except BaseException:
            self._file.close()
            raise
        self._changed = UNNAMED_AT_LEAST
        self._log_bound = LOG_BYTES
        # Above all rows of other times, also those of a log that a copy of the folder has lost: points still name them.
        self._next = max(last + 1, time.time_ns() // 1_000_000 << ROWS_A_MILLISECOND)

    def encode(self, output: M3Output) -> list[bytes]:
        """The bytes of each text's token vectors.

        Raises:
            InputError: If one is too long for the codec.
        """
        if not self._model.colbert_dim:
            return [b""] * len(output)
        codes, offsets = self._codec.encode(output.colbert), output.offsets
        return [codes[a:b].tobytes() for a, b in itertools.pairwise(offsets)]

    def write(self, blobs: Sequence[bytes]) -> list[int]:
        """Put the token vectors of some chunks on disk; returns the row of each: a new one.

        Raises:
            StoreError: If the file cannot be written.
        """
        rows = range(self._next, self._next + len(blobs))
        self._next = rows.stop  # before a Ctrl-C can come
        with self._file.writing() as connection:
            added = [(row, blob, checksum(blob)) for row, blob in zip(rows, blobs, strict=True)]
            connection.executemany("INSERT INTO legs VALUES (?, ?, ?)", added)
        self._rows += len(rows)
        return list(rows)

    def unnamed(self, changed: int, chunks: Callable[[], int]) -> bool:
        """Whether, after another number of chunks has changed, enough rows are named by none to look for them.

        Args:
            changed: The number.
            chunks: Counts all chunks, in milliseconds: asked for at the first change, and now and then.
        """
        self._changed += changed
        if self._changed < UNNAMED_AT_LEAST:
            return False
        there = chunks()
        if self._rows - there > max(UNNAMED_AT_LEAST, UNNAMED * there):
            return True  # until `keep` has done it
        self._changed = 0
        return False

    def keep(self, named: Collection[int]) -> None:
        """Remove all rows but those named, and give their room back where that is most of the file.

        Raises:
            StoreError: If the file is damaged, or cannot be written; what was removed until then is.
        """
        with self._file.writing() as connection:
            kept, rows = set(named), [row for (row,) in connection.execute("SELECT row FROM legs")]
        self._rows, gone = len(rows), [row for row in rows if row not in kept]
        for group in groups(gone):  # each by itself, so that the log stays small
            with self._file.writing() as connection:
                connection.execute(f"DELETE FROM legs WHERE row IN ({', '.join('?' * len(group))})", group)
            self._rows -= len(group)
        self._file.checked.difference_update(gone)
        self._file.shrink()
        self._changed = 0

    def bound_log(self) -> None:
        """Empty the file's log if it is long; the caller lets nobody begin to read meanwhile.

        Where a reader does not end, it is tried again once the log is longer by as much.

        Raises:
            StoreError: If the file is damaged, or cannot be written.
        """
        size = self._file.log_size()
        if size > self._log_bound:
            with self._file.named_errors():
                emptied = self._file.checkpoint(wait=READERS_END)
            self._log_bound = LOG_BYTES if emptied else size + LOG_BYTES

    @contextmanager
    def reading(self) -> Iterator[TokenRows]:
        """The rows as they are when it is entered, which the caller does while no row that it wants can be removed."""
        connection = self._file.begin_reading()
        with self._file.reading(connection):
            yield TokenRows(connection, self._file, self._model, self._codec)

    def close(self) -> None:
        """Put everything into the one file, and close it. Closing twice is not an error."""
        self._file.close()
