"""The file in which a `BM25Leg` keeps its chunks' tokens: one SQLite database, derived from a store.

A change is one transaction, so a kill leaves the state before or after it. Every row carries a
checksum. No connection is kept open, so that processes may share the file, fork and be killed.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from m3rag.bm25.entries import Changes, Contents, Entry, Owner
from m3rag.errors import IndexMismatchError, InputError, StoreError

APPLICATION = int.from_bytes(b"m3bm", "big")
FORMAT = 2
"""2: where a chunk stands is among what filters look at."""

HEAD = b"SQLite format 3\x00"

LIBRARY = re.compile(r" (?:unicode|bm25s)-\S+")
"""Of a tokenizer's name what an upgrade of Python or of bm25s changes: its user has chosen no other tokenizer."""

SCHEMA = f"""
    CREATE TABLE about (tokenizer TEXT NOT NULL, generation TEXT NOT NULL, revision TEXT, chunks INTEGER NOT NULL);
    CREATE TABLE vocabulary (id INTEGER PRIMARY KEY, token TEXT NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE owners (
        id INTEGER PRIMARY KEY, document_id TEXT NOT NULL, metadata TEXT NOT NULL, crc INTEGER NOT NULL
    );
    CREATE TABLE chunks (
        id TEXT PRIMARY KEY, owner INTEGER NOT NULL, digest BLOB NOT NULL, bag BLOB NOT NULL, crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX chunks_of_owner ON chunks (owner);
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {FORMAT};
"""


class DamagedFileError(StoreError):
    """The file cannot be used; all that it held can be had from the store again."""


class BM25File:
    """Reads and writes the file; see `BM25Leg` for what its users are told.

    Args:
        path: The file; made by the first `write`.
        tokenizer: The name of the tokenizer whose tokens it holds.
        timeout: Seconds to wait for another process that is writing.
    """

    def __init__(self, path: Path, *, tokenizer: str, timeout: float) -> None:
        self.path = path
        self._tokenizer = tokenizer
        self._timeout = timeout

    def generation(self) -> str | None:
        """What names the state of the file, None where nothing was written yet."""
        with self._session() as connection:
            return self._about(connection)[0]

    def read(self) -> Contents:
        """All that the file holds.

        Raises:
            InputError: If it is a file of something else.
            IndexMismatchError: If it holds the tokens of another tokenizer, or of a newer m3rag.
            DamagedFileError: If it cannot be read, or is of its tokenizer under another Python or bm25s.
        """
        with self._session() as connection:
            connection.execute("BEGIN")  # one moment for all tables
            generation, revision = self._about(connection)
            if generation is None:
                return Contents()
            vocabulary = self._vocabulary(connection)
            return Contents(generation, revision, self._entries(connection, len(vocabulary)), vocabulary)

    def write(self, changes: Changes, *, after: Contents, revision: str | None) -> str | None:
        """Apply changes, all or none.

        Args:
            changes: What to change.
            after: The contents they were made for.
            revision: The store's, which the contents then equal.

        Returns:
            The generation from then on; None, with nothing written, if the file is not in the state
            of `after` any more, since another process wrote to it.
        """
        generation = uuid.uuid4().hex if changes or after.generation is None else after.generation
        with self._session(write=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if self._about(connection)[0] != after.generation:
                connection.execute("ROLLBACK")
                return None
            if after.generation is None:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
            self._apply(connection, changes, known=len(after.vocabulary))
            connection.execute("DELETE FROM about")
            connection.execute(
                "INSERT INTO about SELECT ?, ?, ?, count(*) FROM chunks", (self._tokenizer, generation, revision)
            )
            connection.execute("COMMIT")
            if changes.renumbered:
                with suppress(sqlite3.OperationalError):  # too little room, or others reading: a later one will do it
                    connection.execute("VACUUM")
        return generation

    def discard(self) -> None:
        """Delete a damaged file."""
        try:
            for path in (self.path, self.path.with_name(self.path.name + "-journal")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"the damaged BM25 file {self.path} cannot be deleted ({error}): delete it") from error

    def _apply(self, connection: sqlite3.Connection, changes: Changes, *, known: int) -> None:
        if changes.renumbered:
            connection.execute("DELETE FROM vocabulary")
            known = 0
        tokens = [(id_, token) for token, id_ in changes.vocabulary.items() if id_ >= known]
        connection.executemany(
            "INSERT INTO vocabulary VALUES (?, ?, ?)", ((id_, token, _crc(id_, token)) for id_, token in tokens)
        )
        connection.executemany("DELETE FROM chunks WHERE id = ?", ((id_,) for id_ in changes.removed))
        rows: dict[Owner, int] = {}
        (next_row,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM owners").fetchone()
        for owner in dict.fromkeys(entry.owner for entry in changes.written.values()):
            rows[owner] = next_row + len(rows)
            row = (rows[owner], owner.document_id, owner.metadata)
            connection.execute("INSERT INTO owners VALUES (?, ?, ?, ?)", (*row, _crc(*row)))
        for id_, entry in changes.written.items():
            parts = (id_, rows[entry.owner], entry.digest, entry.bag.astype("<i4").tobytes())
            connection.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)", (*parts, _crc(*parts)))
        connection.execute("DELETE FROM owners WHERE id NOT IN (SELECT owner FROM chunks)")

    def _about(self, connection: sqlite3.Connection) -> tuple[str | None, str | None]:
        """Generation and revision; None where nothing was written yet."""
        query = (
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),"
            " (SELECT count(*) FROM sqlite_master)"
        )
        application, version, tables = connection.execute(query).fetchone()
        if not tables:
            return None, None
        if application != APPLICATION:
            raise self._foreign()
        if version > FORMAT:
            raise IndexMismatchError(
                f"the BM25 file {self.path} has format {version}, this m3rag reads up to {FORMAT}: "
                "upgrade it (pip install -U m3rag), or delete the file, it is made again from the store"
            )
        if version < FORMAT:
            raise self._damaged(f"format {version}, of an older m3rag")
        rows = connection.execute("SELECT tokenizer, generation, revision FROM about").fetchall()
        if len(rows) != 1:
            raise self._damaged(f"{len(rows)} descriptions of itself")
        tokenizer, generation, revision = rows[0]
        if tokenizer != self._tokenizer:
            if LIBRARY.sub("", tokenizer) == LIBRARY.sub("", self._tokenizer):
                raise DamagedFileError(f"the BM25 file {self.path} was made with {tokenizer}, not {self._tokenizer}")
            raise IndexMismatchError(
                f"the BM25 file {self.path} holds the tokens of the tokenizer {tokenizer!r}, not of "
                f"{self._tokenizer!r}: give that tokenizer, or delete the file, it is made again from the store"
            )
        return generation, revision

    def _vocabulary(self, connection: sqlite3.Connection) -> dict[str, int]:
        vocabulary: dict[str, int] = {}
        for id_, token, crc in connection.execute("SELECT id, token, crc FROM vocabulary ORDER BY id"):
            if crc != _crc(id_, token) or vocabulary.setdefault(token, id_) != len(vocabulary) - 1:
                raise self._damaged(f"token {id_} does not match its checksum")
        return vocabulary

    def _entries(self, connection: sqlite3.Connection, tokens: int) -> dict[str, Entry]:
        owners: dict[int, Owner] = {}
        for id_, document_id, metadata, crc in connection.execute("SELECT * FROM owners"):
            if crc != _crc(id_, document_id, metadata):
                raise self._damaged(f"the metadata of document {document_id!r:.80} do not match their checksum")
            owners[id_] = Owner(document_id, metadata)
        entries: dict[str, Entry] = {}
        for id_, owner, digest, blob, crc in connection.execute("SELECT id, owner, digest, bag, crc FROM chunks"):
            if crc != _crc(id_, owner, digest, blob) or owner not in owners:
                raise self._damaged(f"chunk {id_!r:.80} does not match its checksum")
            bag = np.frombuffer(blob, "<i4").astype(np.int32, copy=False).reshape(2, -1)
            if bag.shape[1] and bag[0, -1] >= tokens:
                raise self._damaged(f"chunk {id_!r:.80} has a token that is not in the vocabulary")
            entries[id_] = Entry(owners[owner], digest, bag)
        (expected,) = connection.execute("SELECT chunks FROM about").fetchone()
        if len(entries) != expected:
            raise self._damaged(f"{len(entries)} of {expected} chunks are left")
        return entries

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: give a file for BM25")
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect(write)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            reason = str(error)
            if "malformed" in reason or "no such" in reason:
                raise self._damaged(reason) from error
            if "locked" in reason:
                remedy = f"another process has been writing to it for {self._timeout:g} s: end it, or give another file"
            else:
                remedy = "check that its folder may be written to and its disk has room, or give another file"
            raise StoreError(f"the BM25 file {self.path} cannot be used ({reason}): {remedy}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError, ValueError) as error:
            # Flipped bits also change the types and the encoding of what is read.
            if isinstance(error, InputError):
                raise
            raise self._damaged(str(error)) if self._is_database() else self._foreign() from error
        except OSError as error:
            raise StoreError(f"the BM25 file {self.path} cannot be used ({error}): give another file") from error

    def _connect(self, write: bool) -> sqlite3.Connection:
        # Looking must not leave an empty file behind.
        if not write and not self.path.exists():
            return sqlite3.connect(":memory:", isolation_level=None)
        return sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None)

    def _is_database(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(HEAD)) == HEAD

    def _foreign(self) -> InputError:
        return InputError(
            f"{self.path} is not a BM25 file of m3rag (or damaged beyond recognition): give another file, "
            "or delete it, it is then made from the store"
        )

    def _damaged(self, reason: str) -> DamagedFileError:
        return DamagedFileError(f"the BM25 file {self.path} is damaged ({reason})")


def _crc(*parts: str | bytes | int) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part if isinstance(part, bytes) else str(part).encode() + b"\x00", crc)
    return crc
