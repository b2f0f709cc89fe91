"""SideLegs: the chunks of a collection whose engine holds only part of them, in one SQLite file.

It is the truth about chunks, documents and all three representations; the engine beside it holds
copies of dense vectors, texts and metadata. Ids are *marked* before the engine's copy of them is
touched and unmarked by the commit that ends a change, so that whatever interrupts a change, the
marked ids are those to compare.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from m3rag._version import __version__
from m3rag.errors import IndexMismatchError
from m3rag.output import M3Output
from m3rag.store.codec import DEFAULT_CODEC, codec_named
from m3rag.store.manifest import check_codec
from m3rag.store.payload import chunk_to_payload, record_to_payload
from m3rag.store.protocol import FORMAT, DocumentRecord, Manifest
from m3rag.store.side_legs_file import SideFile
from m3rag.store.side_legs_filter import add_postings, remove_postings
from m3rag.store.side_legs_read import find_record, load_segment
from m3rag.store.side_legs_rows import checksum, pack
from m3rag.store.sqlite_file import groups
from m3rag.store.view import Positions, View
from m3rag.types import Chunk, ModelInfo


class SideLegs:
    """The side store of one collection. Writers are serialised by the caller; readers are not.

    Args:
        path: The file that `create` made.

    Raises:
        IndexMismatchError: If a newer m3rag wrote the file.
        StoreError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.file = SideFile(path)
        self._lock = threading.Lock()  # held where file and view must change, or be read, together
        try:
            with self.file.writing() as connection:
                self.meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
            self.manifest = _manifest(self.file, self.meta)
            self.codec = codec_named(self.manifest.codec)
            with self.file.writing() as connection:
                _discard(connection)
                self.marked = frozenset(id_ for (id_,) in connection.execute("SELECT id FROM marked"))
                self._view = View.of([load_segment(connection, self.manifest.model, self.file, live=True)])
        except BaseException:
            self.file.close()
            raise

    @staticmethod
    def create(path: Path, model: ModelInfo, meta: Mapping[str, str], *, codec: str = DEFAULT_CODEC) -> None:
        """Write an empty file for a model's representations, token vectors as a codec keeps them.

        Raises:
            ConfigurationError: If there is no such codec.
        """
        manifest = Manifest(model=model, m3rag_version=__version__, codec=codec_named(codec).name)
        SideFile.create(path, {"manifest": json.dumps(asdict(manifest)), **meta})

    @contextmanager
    def reading(self) -> Iterator[tuple[View, sqlite3.Connection]]:
        """The view and the file of one moment."""
        with self._lock:
            view, connection = self._view, self.file.begin_reading()
        with self.file.reading(connection):
            yield view, connection

    def remember(self, key: str, value: str) -> None:
        """Write one value of the file's own."""
        with self.file.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        self.meta[key] = value

    def stage(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Write chunks that nobody sees before the next commit, and mark their ids.

        Raises:
            InputError: If the metadata is not JSON, or a text is not valid Unicode.
        """
        payloads = [chunk_to_payload(chunk) for chunk in chunks]
        with self.file.writing() as connection:
            for chunk, payload, legs in zip(chunks, payloads, pack(output, self.codec), strict=True):
                row = connection.execute(
                    "INSERT INTO chunks (id, document_id, live) VALUES (?, ?, 0)", (chunk.id, chunk.document_id)
                ).lastrowid
                assert row is not None
                text = json.dumps(payload, ensure_ascii=False)
                sums = checksum(text.encode(), legs.dense, legs.lexical), checksum(legs.colbert)
                values = (row, text, legs.dense, legs.lexical, sums[0], legs.colbert, sums[1])
                connection.execute("INSERT INTO legs VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                add_postings(connection, row, payload)
            _mark(connection, [chunk.id for chunk in chunks])
        self.marked |= {chunk.id for chunk in chunks}

    def mark(self, ids: Collection[str]) -> None:
        """Say that the engine's copies of some chunks are about to be touched."""
        if ids:
            with self.file.writing() as connection:
                _mark(connection, ids)
            self.marked |= frozenset(ids)

    def unmark(self) -> None:
        """Say that all copies are what they should be."""
        with self.file.writing() as connection:
            connection.execute("DELETE FROM marked")
        self.marked = frozenset()

    def discard(self) -> None:
        """Forget what was staged; its ids stay marked."""
        with self.file.writing() as connection:
            _discard(connection)

    def commit(
        self,
        *,
        removed: Positions,
        put: DocumentRecord | None = None,
        dropped: Collection[str] = (),
        keep_versions: bool = True,
    ) -> None:
        """End a change: what was staged is there, what was removed is not, nothing is marked.

        Args:
            removed: Positions of the chunks that go, ascending.
            put: The record of a document that is now whole; the records of others that gain or
                lose chunks are kept true.
            dropped: Documents that go with their record.
            keep_versions: False where the chunks were lost: what is left of their documents is no
                longer the version that the record names.
        """
        view, model = self._view, self.manifest.model
        with self.file.writing() as connection:
            added = load_segment(connection, model, self.file, live=False)
        changed, revision = view.changed(removed=removed, added=added), uuid.uuid4().hex
        with self.file.writing(committing=self._showing(changed, revision)) as connection:
            rows = view.rows[removed].tolist()
            touched = {*_documents_of(connection, rows), *_staged_documents(connection)}
            _delete(connection, rows)
            connection.execute("UPDATE chunks SET live = 1 WHERE live = 0")
            connection.executemany("DELETE FROM documents WHERE id = ?", [(id_,) for id_ in dropped])
            if put is not None:
                _write_record(connection, put)
            for document_id in sorted(touched - {put.id if put else None} - set(dropped)):
                _recount(connection, document_id, keep_version=keep_versions)
            connection.execute("DELETE FROM marked")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))

    @contextmanager
    def _showing(self, view: View, revision: str) -> Iterator[None]:
        # No reader may see the file of one moment with the view of another.
        with self._lock:
            try:
                yield
                self._show(view, revision)
            except BaseException:  # a Ctrl-C while the file was put on disk comes when it is committed
                if self.file.has_committed("revision", revision):
                    self._show(view, revision)
                raise

    def _show(self, view: View, revision: str) -> None:
        self._view = view
        # After the view: who reads the old revision with new chunks looks again, the reverse would not.
        self.meta["revision"] = revision
        self.marked = frozenset()

    def close(self) -> None:
        """Close the file; closing twice is not an error."""
        self.file.close()
        self._view = View.of([])


def _manifest(file: SideFile, meta: Mapping[str, str]) -> Manifest:
    try:
        content = json.loads(meta["manifest"])
        written = int(content["format"])
        if written > FORMAT:
            raise IndexMismatchError(
                f"{file.path} has format {written}, written by m3rag {content.get('m3rag_version')}; "
                f"this m3rag reads up to {FORMAT}: upgrade it (pip install -U m3rag)"
            )
        codec = str(content.get("codec", "float16"))
        check_codec(codec, str(file.path))
        return Manifest(ModelInfo(**content["model"]), content["m3rag_version"], written, codec)
    except (ValueError, KeyError, TypeError) as error:
        raise file.damaged(f"manifest: {type(error).__name__}: {error}") from error


def _mark(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    connection.executemany("INSERT OR IGNORE INTO marked VALUES (?)", [(id_,) for id_ in ids])


def _discard(connection: sqlite3.Connection) -> None:
    _delete(connection, [row for (row,) in connection.execute("SELECT row FROM chunks WHERE live = 0")])


def _delete(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    for group in groups(rows):
        among = f"WHERE row IN ({', '.join('?' * len(group))})"
        for row, payload in connection.execute(f"SELECT row, payload FROM legs {among}", group).fetchall():
            remove_postings(connection, row, json.loads(payload))
        connection.execute(f"DELETE FROM legs {among}", group)
        connection.execute(f"DELETE FROM chunks {among}", group)


def _documents_of(connection: sqlite3.Connection, rows: Sequence[int]) -> Iterator[str]:
    for group in groups(rows):
        marks = ", ".join("?" * len(group))
        for (document_id,) in connection.execute(
            f"SELECT DISTINCT document_id FROM chunks WHERE row IN ({marks})", group
        ):
            yield document_id


def _staged_documents(connection: sqlite3.Connection) -> Iterator[str]:
    for (document_id,) in connection.execute("SELECT DISTINCT document_id FROM chunks WHERE live = 0"):
        yield document_id


def _write_record(connection: sqlite3.Connection, record: DocumentRecord) -> None:
    payload = json.dumps(record_to_payload(record), ensure_ascii=False)
    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (record.id, payload))


def _recount(connection: sqlite3.Connection, document_id: str, *, keep_version: bool) -> None:
    counted = "SELECT count(*) FROM chunks WHERE document_id = ? AND live = 1"
    (chunks,) = connection.execute(counted, (document_id,)).fetchone()
    record = find_record(connection, document_id)
    record = record or DocumentRecord(id=document_id, title=document_id, version="", chunks=0)
    record = replace(record, chunks=chunks, version=record.version if keep_version else "")
    if chunks or record.version:
        _write_record(connection, record)
    else:
        connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))
