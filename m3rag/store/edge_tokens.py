"""The token vectors of an index in a folder: `tokens.sqlite` beside the engine's files, a row a chunk.

The engine could keep them, too. From here they are scored in a third of its time and without Python's interpreter lock,
in any codec, and the engine's log, its segments and their merging have a tenth of the bytes.

A chunk's point names its row. Rows are on disk before the point that names them is written, never change, and go only
once no point on disk names them: whatever interrupts a change leaves rows that nothing names, and never a point without
its row. What nothing names is removed when it has become a fifth of the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
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
"""Rows that nothing names, as a share of the points, from which on they are removed."""

UNNAMED_AT_LEAST = 1_000


class TokenFile(SqliteFile):
    """The file; what it is read for stands in `EdgeTokens`."""

    # Rows are counted and listed by the index on them: the table itself is as large as all the vectors.
    schema: ClassVar[str] = """
CREATE TABLE legs (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
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
        with self._file.writing() as connection:
            self._rows = int(connection.execute("SELECT count(*) FROM legs").fetchone()[0])

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
        """Put the token vectors of some chunks on disk; returns the row of each, which was never another's.

        Raises:
            StoreError: If the file cannot be written.
        """
        rows = []
        with self._file.writing() as connection:
            for blob in blobs:
                added = connection.execute(
                    "INSERT INTO legs (colbert, colbert_checksum) VALUES (?, ?)", (blob, checksum(blob))
                ).lastrowid
                assert added is not None
                rows.append(added)
        self._rows += len(rows)
        return rows

    def unnamed(self, points: int) -> bool:
        """Whether enough rows are named by none of so many points that looking for them is worth its while."""
        return self._rows - points > max(UNNAMED_AT_LEAST, UNNAMED * points)

    def keep(self, named: Collection[int]) -> None:
        """Remove all rows but those named, and give their room back where that is most of the file.

        Raises:
            StoreError: If the file cannot be written.
        """
        with self._file.writing() as connection:
            kept = set(named)
            gone = [row for (row,) in connection.execute("SELECT row FROM legs") if row not in kept]
            for group in groups(gone):
                connection.execute(f"DELETE FROM legs WHERE row IN ({', '.join('?' * len(group))})", group)
        self._rows -= len(gone)
        self._file.checked.difference_update(gone)
        self._file.shrink()

    def begin_reading(self) -> TokenRows:
        """The rows as they are now, to be read by `reading`."""
        return TokenRows(self._file.begin_reading(), self._file, self._model, self._codec)

    @contextmanager
    def reading(self, rows: TokenRows) -> Iterator[TokenRows]:
        """Read what `begin_reading` gave, and give it back."""
        try:
            with self._file.named_errors():
                yield rows
        finally:
            self._file.end_reading(rows.connection)

    def close(self) -> None:
        """Put everything into the one file, and close it. Closing twice is not an error."""
        self._file.close()
