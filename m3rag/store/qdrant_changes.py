"""How several clients change one collection at a time without any seeing half a document.

Points of kind `pending` name the documents in change, one for each change and document. A chunk is
visible when no pending point names its document, or when it is of the revision that the document's
record states. So what is being written is hidden until the record is replaced, and what it replaces
from then on, whoever looks.

A reader keeps its view (the pending points and the records they concern) and checks after each
search that the `epoch` is still that of the view. The epoch is one point, set to a new random value
after pending points are written, after a record is replaced, and before chunks are deleted: while it
stays, a view is true. Otherwise the reader looks again.

Settling ends a change: it deletes the revisions that are neither the record's nor being written by
another change. A change that nobody settled is no danger, only waste; its pending point hides it
until an opener finds it older than the lease.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qdrant_client import models

from m3rag.errors import StoreError
from m3rag.store.edge_points import revision
from m3rag.store.payload import record_from_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.store.qdrant_connection import PAGE, Connection, deleting, deleting_ids, setting, upserting
from m3rag.store.qdrant_points import Engine, any_of, bare_point, document_point, has_id, of_kind, point_id, where

ATTEMPTS = 5
LEASE = 3600.0
"""Seconds without a sign of life after which a change counts as abandoned."""

T = TypeVar("T")
Point = models.Record | models.ScoredPoint

SIGHT = ["id", "document_id", "revision"]
"""The fields of a chunk's payload by which its visibility is judged."""


@dataclass(frozen=True, slots=True)
class View:
    """What may be seen: documents in change -> the revision their record states, None without a record."""

    epoch: str
    committed: Mapping[str, str | None]

    def hidden(self) -> list[Engine]:
        """The conditions, of which none may hold, for the chunks that may be seen."""
        if not self.committed:
            return []
        kept = [one for one in self.committed.values() if one is not None]
        return [where(any_of("document_id", self.committed), without=[any_of("revision", kept)] if kept else [])]

    def chunks(self, *conditions: Engine) -> models.Filter:
        """The visible chunks that meet some conditions."""
        return where(of_kind("chunk"), *conditions, without=self.hidden())

    def shows(self, payload: Mapping[str, Any]) -> bool:
        """Whether a chunk that was found by its id may be seen."""
        document_id = payload["document_id"]
        return document_id not in self.committed or self.committed[document_id] == payload["revision"]


@dataclass(frozen=True, slots=True)
class Change:
    """Documents being changed together, with the revision of what is written to each.

    Attributes:
        token: Tells changes apart.
        revisions: Document id -> the revision being written.
        single: Whether single chunks come or go, whose document needs a record as long as it has any.
        since: The last sign of life, seconds since 1970.
    """

    token: str
    revisions: Mapping[str, str]
    single: bool
    since: float

    @property
    def ids(self) -> list[str]:
        """The ids of its pending points."""
        return [point_id("pending", self.token, document_id) for document_id in self.revisions]

    def pending(self) -> models.UpsertOperation:
        """The operation that announces it, or gives a sign of life."""
        common = {"token": self.token, "single": self.single, "since": self.since}
        return upserting(
            [
                bare_point(id_, "pending", {"document_id": document_id, "revision": one, **common})
                for id_, (document_id, one) in zip(self.ids, self.revisions.items(), strict=True)
            ]
        )


class Changes:
    """The changes of one collection, seen from one client.

    Args:
        connection: The collection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._view: View | None = None

    def stable(self, read: Callable[[View], T], confirm: Callable[[T], T]) -> T:
        """What is read while no document's visibility changed.

        Args:
            read: Reads what a view shows.
            confirm: What is left of the last reading when documents were changed during all of
                five; see `shown`.
        """
        for _ in range(ATTEMPTS):
            view = self._view or self._look()
            found = read(view)
            if self.epoch() == view.epoch:
                self._view = view
                return found
            self._view = None
        return confirm(found)

    def shown(self, points: Sequence[Any]) -> list[Any]:
        """The points whose document's record now states their revision."""
        payloads = [point.payload or {} for point in points]
        records = self.records({payload["document_id"] for payload in payloads})
        now = {id_: revision(id_, record.version) for id_, record in records.items()}
        pairs = zip(points, payloads, strict=True)
        return [point for point, payload in pairs if now.get(payload["document_id"]) == payload["revision"]]

    def records(self, document_ids: Iterable[str]) -> dict[str, DocumentRecord]:
        """The records that there are among some documents, by id."""
        ids = [point_id("document", document_id) for document_id in dict.fromkeys(document_ids)]
        found = self._connection.retrieve(ids, settled=True)
        records = (record_from_payload(point.payload or {}) for point in found)
        return {record.id: record for record in records}

    def stated(self, documents: Iterable[str]) -> dict[str, str]:
        """The revision that each record states, by document; nothing for documents that are not stored."""
        return {id_: revision(id_, record.version) for id_, record in self.records(documents).items()}

    def counted(self, records: Iterable[DocumentRecord], view: View) -> list[DocumentRecord]:
        """Records with the true number of chunks, which theirs is not while single chunks come and go."""
        listed = list(records)
        changing = [record.id for record in listed if record.id in view.committed]
        if not changing:
            return listed
        present = self._present(changing)
        return [
            replace(record, chunks=present.get(revision(record.id, record.version), 0))
            if record.id in view.committed
            else record
            for record in listed
        ]

    def begin(self, revisions: Mapping[str, str], *, single: bool = False) -> Change:
        """Announce a change: from now on only what the documents' records state is visible of them."""
        change = Change(uuid.uuid4().hex, dict(revisions), single, time.time())
        self._connection.write(change.pending(), self.new_epoch())
        return change

    def alive(self, change: Change) -> Change:
        """The same change with a sign of life, which its next write must carry.

        Raises:
            StoreError: If the last one is so long ago that another client may have cleared it away.
        """
        now = time.time()
        if now - change.since > LEASE / 2:
            raise StoreError(
                f"writing paused for {now - change.since:,.0f} s, so that others may take it for abandoned: write "
                "the document again, with parts that follow each other sooner"
            )
        return replace(change, since=now)

    def new_epoch(self) -> models.UpsertOperation:
        """The operation that makes every client look again."""
        return upserting([bare_point(point_id("epoch", ""), "epoch", {"epoch": uuid.uuid4().hex})])

    def settle(self, change: Change) -> None:
        """End a change, whether it came to its commit or not: its documents hold what their records state."""
        # First it no longer protects what it wrote: of two that settle at a time, one sees the other
        # done; and who had seen it protected had replaced the record before, which is read below.
        self._connection.write(setting({"done": True}, where(has_id(change.ids))))
        self._delete_stale(change)
        self.recount(change)
        self._connection.write(deleting_ids(change.ids))

    def settle_abandoned(self, older_than: float) -> int:
        """Settle what writers left behind that have not been heard of for some seconds.

        Returns:
            How many changes there were.
        """
        abandoned: dict[str, Change] = {}
        for payload in self._pending():
            if time.time() - payload["since"] >= older_than:
                known = abandoned.get(payload["token"])
                revisions = {**(known.revisions if known else {}), payload["document_id"]: payload["revision"]}
                abandoned[payload["token"]] = Change(payload["token"], revisions, payload["single"], payload["since"])
        for change in abandoned.values():
            self.settle(change)
        return len(abandoned)

    def recount(self, change: Change) -> None:
        """Make the records tell the true number of chunks, and be there as long as they have to."""
        documents = list(change.revisions)
        while True:
            present = self._present(documents)
            records = self.records(documents)
            operations: list[Any] = []
            for id_ in documents:
                record = records.get(id_)
                count = present.get(revision(id_, record.version if record else ""), 0)
                itself = where(has_id([point_id("document", id_)]))
                if record is None:
                    if change.single and count:
                        operations.append(upserting([document_point(DocumentRecord(id_, id_, "", count))]))
                elif record.chunks != count:
                    operations.append(setting({"chunks": count}, itself))
                elif not record.version and not count:
                    # Only if no other client has counted a chunk since.
                    empty = models.FieldCondition(key="chunks", match=models.MatchValue(value=0))
                    operations.append(deleting(where(has_id([point_id("document", id_)]), empty)))
            if not operations:
                return
            self._connection.write(*operations)

    def _delete_stale(self, change: Change) -> None:
        documents = list(change.revisions)
        # In this order: chunks that are there, then who is writing, then the records. A writer
        # whose chunks are found had announced itself before, and so is found, or has finished,
        # and then the record says whether it stands.
        present = self._present(documents)
        others = {
            payload["revision"]
            for payload in self._pending(any_of("document_id", documents))
            if payload["token"] != change.token and not payload.get("done")
        }
        records = self.records(documents)
        stated = {id_: revision(id_, record.version) for id_, record in records.items()}
        kept = {*stated.values(), *others}
        if change.single:
            kept |= {revision(id_, "") for id_ in documents if id_ not in records}
        stale = [one for one in present if one not in kept]
        operations: list[Any] = [self.new_epoch()]
        if stale:
            operations.append(deleting(where(of_kind("chunk"), any_of("revision", stale))))
        self._connection.write(*operations)

    def _present(self, documents: Iterable[str]) -> dict[str, int]:
        """How many chunks there are of each revision of some documents, seen or not."""
        return self._connection.counts("revision", where(of_kind("chunk"), any_of("document_id", documents)))

    def _look(self) -> View:
        # The epoch first: a change announced later has a later one.
        epoch = self.epoch()
        documents = {payload["document_id"] for payload in self._pending()}
        stated = self.stated(sorted(documents)) if documents else {}
        return View(epoch, {id_: stated.get(id_) for id_ in sorted(documents)})

    def epoch(self) -> str:
        found = self._connection.retrieve([point_id("epoch", "")], settled=True)
        return str((found[0].payload or {})["epoch"]) if found else ""

    def _pending(self, *conditions: Engine) -> list[dict[str, Any]]:
        return [point.payload or {} for point in self._connection.all(where(of_kind("pending"), *conditions))]


def in_pages(ids: Collection[str]) -> list[list[str]]:
    """Ids in groups that one request may name."""
    listed = list(dict.fromkeys(ids))
    return [listed[a : a + PAGE] for a in range(0, len(listed), PAGE)]
