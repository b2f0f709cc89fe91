"""Changes of a Qdrant Edge index that a kill between any two writes leaves repairable by one rule."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import qdrant_edge as qdrant

from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_filters import chunks_where, of_kind
from m3rag.store.edge_points import chunk_point, document_point, pending_point, point_id, revision
from m3rag.store.filters import DOCUMENT_ID, AnyOf, Condition
from m3rag.store.parts import check_chunks, checked_parts
from m3rag.store.payload import Payload, chunk_to_payload, record_from_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.types import Chunk, ModelInfo

UPSERT_SIZE = 64  # points a write: bounds memory and the time readers wait
DELETE_SIZE = 1_000


class EdgeChanges:
    """The writing half of a QdrantEdgeStore.

    Before a document is changed, a `pending` point names it. `settle` brings it to a whole state and
    removes that point: chunks that are not of its record's version are deleted, and the record
    counts the others (one without a version goes with its last chunk). Opening settles wherever a
    `pending` point is left.

    - A whole document: pending, its chunks under a new revision, its record (from here on the change
      has happened), settle.
    - Single chunks: one write of pending, records that are missing, and chunks; settle.
    - Deletions: pending; the chunks, or the record; settle.

    Args:
        engine: The shard.
        model: The model whose representations it holds.
    """

    def __init__(self, engine: EdgeEngine, model: ModelInfo) -> None:
        self._writing = threading.RLock()
        self._engine = engine
        self._model = model
        self._hidden: dict[str, str] = {}  # document id -> the revision being written
        self.settle([payload["document_id"] for payload in engine.payloads(of_kind("pending"))])

    @property
    def writing(self) -> threading.RLock:
        """What a writer holds over a whole change."""
        self._engine.require_ours()
        return self._writing

    @property
    def hidden(self) -> set[str]:
        """The revisions that are being written and not to be seen yet."""
        with self._engine.lock:
            return set(self._hidden.values())

    def visible(self, condition: Condition) -> qdrant.Filter:
        """The engine's conditions for the chunks that meet a condition and are to be seen."""
        return chunks_where(condition, without=self.hidden)

    def records(self, document_ids: Iterable[str]) -> dict[str, DocumentRecord]:
        """The records of those documents that are stored, by id."""
        found = self._engine.retrieve([point_id("document", id_) for id_ in document_ids])
        records = (record_from_payload(point.payload or {}) for point in found)
        return {record.id: record for record in records}

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """See `Store.put_document`."""
        with self.writing:
            committed = document_point(document)
            new = revision(document.id, document.version)
            before = self.records([document.id]).get(document.id)
            written: set[uuid.UUID] = set()
            try:
                # The same version again writes the same chunks over themselves: nothing to hide.
                if before is None or before.version != document.version:
                    self._hidden[document.id] = new
                self._engine.upsert([pending_point(document.id)])
                for chunks, output in checked_parts(document, parts, model=self._model):
                    self._refuse_taken([chunk.id for chunk in chunks], new)
                    payloads, tokens = [chunk_to_payload(chunk) for chunk in chunks], self._engine.tokens.encode(output)
                    for a in range(0, len(payloads), UPSERT_SIZE):
                        few = slice(a, a + UPSERT_SIZE)
                        points = self._points(payloads[few], output[few], tokens[few], [new] * len(payloads[few]))
                        self._engine.upsert(points)
                        written.update(_uuid(point) for point in points)
                with self._engine.lock:
                    self._engine.upsert([committed])
                    if document.id not in self._hidden:  # what `upsert` had added to the same version
                        self._delete_others(document.id, written)
                    self.settle([document.id])
            except BaseException:
                self.settle([document.id])
                raise
            self._engine.make_durable(document.chunks)

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """See `Store.upsert`."""
        with self.writing:
            check_chunks(chunks, output, model=self._model)
            payloads, tokens = [chunk_to_payload(chunk) for chunk in chunks], self._engine.tokens.encode(output)
            for a in range(0, len(payloads), UPSERT_SIZE):
                few = slice(a, a + UPSERT_SIZE)
                self._upsert_few(payloads[few], output[few], tokens[few])
            self._engine.make_durable(len(chunks))

    def _upsert_few(self, payloads: list[Payload], output: M3Output, tokens: Sequence[bytes]) -> None:
        with self._engine.lock:
            joined = dict.fromkeys(payload["document_id"] for payload in payloads)
            replaced = self._engine.retrieve(
                [point_id("chunk", payload["id"]) for payload in payloads], payload=["document_id"]
            )
            changed = dict.fromkeys([*joined, *((point.payload or {})["document_id"] for point in replaced)])
            records = self.records(joined)
            new = {id_: DocumentRecord(id=id_, title=id_, version="", chunks=0) for id_ in joined if id_ not in records}
            records |= new
            points = [pending_point(id_) for id_ in changed] + [document_point(record) for record in new.values()]
            joins = [records[payload["document_id"]] for payload in payloads]
            revisions = [revision(record.id, record.version) for record in joins]
            points += self._points(payloads, output, tokens, revisions)
            with self._settling(changed):
                self._engine.upsert(points)

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """See `Store.delete_chunks`."""
        ids = list({point_id("chunk", id_): None for id_ in chunk_ids})
        with self.writing:
            deleted = sum(self._delete_few(ids[a : a + DELETE_SIZE]) for a in range(0, len(ids), DELETE_SIZE))
            if deleted:
                self._engine.make_durable(deleted)
            return deleted

    def _delete_few(self, ids: Sequence[uuid.UUID]) -> int:
        with self._engine.lock:
            found = self._engine.retrieve(ids, payload=["document_id", "revision"])
            seen = [point for point in found if (point.payload or {})["revision"] not in self.hidden]
            changed = dict.fromkeys((point.payload or {})["document_id"] for point in seen)
            self._delete([_uuid(point) for point in seen], changed)
            return len(seen)

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """See `Store.delete_documents`."""
        with self.writing:
            with self._engine.lock:
                stored = self.records(dict.fromkeys(document_ids))
                if stored:
                    self._delete([point_id("document", id_) for id_ in stored], stored)
            if stored:
                self._engine.make_durable(sum(record.chunks for record in stored.values()))
            return len(stored)

    def _delete(self, ids: Sequence[uuid.UUID], changed: Iterable[str]) -> None:
        changed = list(changed)
        with self._settling(changed):
            self._engine.upsert([pending_point(id_) for id_ in changed])
            self._engine.delete(ids)

    @contextmanager
    def _settling(self, document_ids: Collection[str]) -> Iterator[None]:
        try:
            yield
            self.settle(document_ids)
        except BaseException:  # such as a Ctrl-C, also one while it settled
            self.settle(document_ids)
            raise

    def settle(self, document_ids: Iterable[str]) -> None:
        """Make documents' chunks those of their records (none without one), the records' counts true, all done."""
        ids = list(document_ids)
        if not ids:
            return
        with self._engine.lock:
            records = self.records(ids)
            kept = [revision(record.id, record.version) for record in records.values()]
            self._engine.delete_where(chunks_where(AnyOf(DOCUMENT_ID, tuple(ids)), without=kept))
            gone, recounted = [], []
            for record in records.values():
                count = self._engine.count(chunks_where(AnyOf(DOCUMENT_ID, (record.id,)), without=[]))
                if not (count or record.version):
                    gone.append(point_id("document", record.id))
                elif count != record.chunks:
                    recounted.append(document_point(replace(record, chunks=count)))
            self._engine.upsert(recounted)
            self._engine.delete([*gone, *(point_id("pending", id_) for id_ in ids)])
            for id_ in ids:
                self._hidden.pop(id_, None)

    def _points(
        self, payloads: Sequence[Payload], output: M3Output, tokens: Sequence[bytes], revisions: Sequence[str]
    ) -> list[qdrant.Point]:
        """The points of some chunks, whose token vectors are on disk by then."""
        rows = self._engine.write_tokens(tokens)
        return [
            chunk_point(payload, one, revision=new, row=row)
            for payload, one, new, row in zip(payloads, output, revisions, rows, strict=True)
        ]

    def _delete_others(self, document_id: str, written: set[uuid.UUID]) -> None:
        stored = self._engine.payloads(chunks_where(AnyOf(DOCUMENT_ID, (document_id,)), without=[]), fields=["id"])
        others = {point_id("chunk", payload["id"]) for payload in stored} - written
        self._engine.delete(sorted(others))

    def _refuse_taken(self, chunk_ids: Sequence[str], revision: str) -> None:
        ids = [point_id("chunk", id_) for id_ in chunk_ids]
        for point in self._engine.retrieve(ids, payload=["id", "revision"]):
            payload = point.payload or {}
            if payload["revision"] != revision:
                raise InputError(
                    f"chunk {payload['id']!r} is already stored with another document or version: chunk ids must differ"
                )


def _uuid(point: qdrant.Record | qdrant.Point) -> Any:
    return point.id
