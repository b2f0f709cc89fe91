"""The writing half of a QdrantStore: each change announced, made, and settled."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.store.edge_points import revision
from m3rag.store.parts import check_chunks, checked_parts
from m3rag.store.payload import Payload, chunk_to_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.store.qdrant_changes import SIGHT, Change, Changes, View, in_pages
from m3rag.store.qdrant_connection import PAGE, Connection, deleting, deleting_ids, setting, upserting
from m3rag.store.qdrant_points import (
    any_of,
    check_size,
    chunk_point,
    document_point,
    has_id,
    in_requests,
    of_kind,
    point_id,
    where,
)
from m3rag.types import Chunk, ModelInfo

logger = logging.getLogger(__name__)


class Writes:
    """What changes one collection; see `m3rag.store.qdrant_changes` for what others see meanwhile.

    Args:
        connection: The collection.
        changes: Its changes.
        model: The model whose representations it holds.
    """

    def __init__(self, connection: Connection, changes: Changes, model: ModelInfo) -> None:
        self._connection = connection
        self._changes = changes
        self._model = model

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """See `Store.put_document`."""
        committed = document_point(document)
        new = revision(document.id, document.version)
        written: list[str] = []
        with self._changing({document.id: new}) as change:
            for chunks, output in checked_parts(document, parts, model=self._model):
                payloads = _payloads(chunks, output)
                ids = [point_id("chunk", chunk.id) for chunk in chunks]
                self._refuse_taken(ids, new)
                change = self._write_chunks(change, payloads, output, {document.id: new})  # noqa: PLW2901
                written += ids
            ours = where(of_kind("chunk"), any_of("revision", [new]), has_id(written))
            there = self._connection.count(ours) if written else 0
            if there != len(written):
                raise StoreError(
                    f"document {document.id!r}: {len(written)} chunks were written and {there} are there, so another "
                    "client must have changed the document at the same time; nothing has been replaced: write it again"
                )
            mine = [has_id(written)] if written else []
            # What `upsert` had added to this version goes, as does what an interrupted try left of it.
            others = where(of_kind("chunk"), any_of("revision", [new]), without=mine)
            self._connection.write(upserting([committed]), self._changes.new_epoch(), deleting(others))

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """See `Store.upsert`."""
        self._connection.check_open()
        check_chunks(chunks, output, model=self._model)
        payloads = _payloads(chunks, output)
        for a in range(0, len(payloads), PAGE):
            self._upsert_few(payloads[a : a + PAGE], output[a : a + PAGE])

    def _upsert_few(self, payloads: list[Payload], output: M3Output) -> None:
        joined = list(dict.fromkeys(payload["document_id"] for payload in payloads))
        ids = [point_id("chunk", payload["id"]) for payload in payloads]
        replaced = self._connection.retrieve(ids, fields=["document_id"])
        left = [(point.payload or {})["document_id"] for point in replaced]
        stated = self._changes.stated([*joined, *left])
        revisions = {id_: stated.get(id_) or revision(id_, "") for id_ in dict.fromkeys([*joined, *left])}
        with self._changing(revisions, single=True) as change:
            new = [DocumentRecord(id=id_, title=id_, version="", chunks=0) for id_ in joined if id_ not in stated]
            if new:
                # Before the chunks, which would be hidden without.
                self._connection.write(upserting(list(map(document_point, new))), self._changes.new_epoch())
            self._write_chunks(change, payloads, output, revisions)
            # A record that another client deleted meanwhile is made again, or chunks go over to the
            # revision of one that another client wrote; all before they are no longer protected.
            self._changes.recount(change)
            self._follow({id_: revisions[id_] for id_ in joined}, ids)
            self._changes.recount(change)

    def _follow(self, written: dict[str, str], ids: list[str]) -> None:
        """Give chunks the revision that their document's record states by now, if another client replaced it."""
        while True:
            stated = self._changes.stated(written)
            moved = {id_: stated.get(id_) or revision(id_, "") for id_ in written}
            moved = {id_: one for id_, one in moved.items() if one != written[id_]}
            if not moved:
                return
            for id_, one in moved.items():
                ours = where(any_of("document_id", [id_]), any_of("revision", [written[id_]]), has_id(ids))
                self._connection.write(setting({"revision": one}, ours))
            written = {**written, **moved}

    def delete_chunks(self, chunk_ids: Iterable[str]) -> int:
        """See `Store.delete_chunks`."""
        ids = [point_id("chunk", id_) for id_ in chunk_ids]
        return sum(map(self._delete_few, in_pages(ids)))

    def _delete_few(self, ids: list[str]) -> int:
        def seen(view: View) -> list[Payload]:
            found = self._connection.retrieve(ids, fields=SIGHT)
            return [point.payload or {} for point in found if view.shows(point.payload or {})]

        payloads = self._changes.stable(seen, lambda found: found)
        if not payloads:
            return 0
        with self._changing({payload["document_id"]: payload["revision"] for payload in payloads}, single=True):
            self._connection.write(deleting_ids([point_id("chunk", payload["id"]) for payload in payloads]))
        return len(payloads)

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """See `Store.delete_documents`."""
        deleted = 0
        for some in in_pages(document_ids):
            stated = self._changes.stated(some)
            if stated:
                with self._changing(stated):
                    records = deleting_ids([point_id("document", id_) for id_ in stated])
                    # Of single chunks, which `upsert` of another client would keep by a new record.
                    loose = [revision(id_, "") for id_ in stated]
                    chunks = deleting(where(of_kind("chunk"), any_of("revision", loose)))
                    self._connection.write(records, self._changes.new_epoch(), chunks)
            deleted += len(stated)
        return deleted

    @contextmanager
    def _changing(self, revisions: Mapping[str, str], *, single: bool = False) -> Iterator[Change]:
        change = self._changes.begin(revisions, single=single)
        try:
            yield change
        finally:
            try:
                self._changes.settle(change)
            except StoreError as error:
                # What is seen is right without it; what has happened must not look like a failure.
                logger.warning("a change of %s was left for a later open to clear: %s", list(revisions)[:3], error)

    def _write_chunks(
        self, change: Change, payloads: Sequence[Payload], output: M3Output, revisions: Mapping[str, str]
    ) -> Change:
        points = (
            chunk_point(payload, output[i], revision=revisions[payload["document_id"]])
            for i, payload in enumerate(payloads)
        )
        for group in in_requests(points):
            change = self._changes.alive(change)
            self._connection.write(change.pending(), upserting(group))
        return change

    def _refuse_taken(self, ids: Sequence[str], revision: str) -> None:
        for point in self._connection.retrieve(ids, fields=SIGHT):
            payload = point.payload or {}
            if payload["revision"] != revision:
                raise InputError(
                    f"chunk {payload['id']!r} is already stored with another document or version: chunk ids must differ"
                )


def _payloads(chunks: Sequence[Chunk], output: M3Output) -> list[Payload]:
    # All of them before the first is written, so that an InputError changes nothing.
    for i, chunk in enumerate(chunks):
        check_size(f"chunk {chunk.id!r}", output[i])
    return [chunk_to_payload(chunk) for chunk in chunks]
