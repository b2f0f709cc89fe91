"""The engine of one index: a Qdrant Edge shard behind a lock, its errors as ours, its log on disk."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as qdrant

from m3rag.errors import M3RagError, StoreError
from m3rag.store.edge_filters import of_kind
from m3rag.store.edge_folder import close_shard, is_of_engine, load_shard, require_room, sync_log, tokens_path
from m3rag.store.edge_points import EXACT_UP_TO
from m3rag.store.edge_tokens import EdgeTokens
from m3rag.store.manifest import forked
from m3rag.store.protocol import Manifest

log = logging.getLogger(__name__)

RANGES_INDEXED_FROM = 2_000  # points
FLUSH_EVERY = 2_000  # chunks: bounds the write-ahead log, which the next open replays after a kill

NAMED_AT_ONCE = 1_000  # points

Payload = dict[str, Any]


class EdgeEngine:
    """The shard of an index; every call holds the lock, which callers may hold over several.

    Args:
        path: The index's folder.
        manifest: Whose representations it holds, and how.

    Attributes:
        tokens: The chunks' token vectors, which are not in the shard.

    Raises:
        IndexLockedError: If another process, or another store of this one, has it open.
        StoreError: If the engine cannot read it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._path = path
        self._unflushed = 0
        self.changed: set[uuid.UUID] | None = None  # points written or removed since this was set; None: nobody follows
        self._shard: qdrant.EdgeShard | None
        self._shard, revision = load_shard(path, manifest)
        self.revision = revision or uuid.uuid4().hex  # another after every change
        try:
            self.tokens = EdgeTokens(tokens_path(path, manifest), manifest)
        except BaseException:
            self._shard.close()
            raise

    @property
    def lock(self) -> threading.RLock:
        """What every call holds.

        Raises:
            IndexLockedError: In a process that was forked from the one that opened the index.
        """
        self.require_ours()
        return self._lock

    @property
    def is_ours(self) -> bool:
        """Whether it was opened in this process: in one forked from it, a thread of the parent may hold the lock."""
        return self._process == os.getpid()

    def require_ours(self) -> None:
        """Refuse a process that was forked from the one that opened the index: it would wait for ever.

        Raises:
            IndexLockedError: If this is one.
        """
        if not self.is_ours:
            raise forked(self._path)

    @contextmanager
    def shard(self) -> Iterator[qdrant.EdgeShard]:
        """The shard itself; what it raises becomes a StoreError that names the index."""
        with self.lock:
            if self._shard is None:
                raise StoreError(f"the index at {self._path} is closed: open it again")
            try:
                yield self._shard
            except BaseException as error:
                if isinstance(error, M3RagError) or not is_of_engine(error):
                    raise
                raise StoreError(
                    f"the index at {self._path} failed: {error}; if that repeats, restore it from a backup, "
                    f"or delete it and ingest again"
                ) from error

    def update(self, operation: qdrant.UpdateOperation) -> None:
        """Make one change: in the write-ahead log it is one entry, there or not."""
        with self.shard() as shard:
            self.revision = uuid.uuid4().hex
            shard.update(operation)

    def write_tokens(self, blobs: Sequence[bytes]) -> list[int]:
        """Put the token vectors of some chunks on disk; returns the row of each."""
        with self.lock:
            require_room(self._path)
            return self.tokens.write(blobs)

    def _tidy(self, changed: int) -> None:
        """Remove the token vectors that no point names, where they are many, and bound their log.

        What a change needed has been done: an error here is not the change's, and the next one tries again.
        """
        try:
            if self.tokens.unnamed(changed, lambda: self.count(of_kind("chunk"))):
                require_room(self._path)
                pages = self.records(payload=["row"], vectors=[], page=NAMED_AT_ONCE)
                self.tokens.keep({(point.payload or {}).get("row", 0) for page in pages for point in page})
            with self.lock:
                self.tokens.bound_log()
        except (StoreError, OSError) as error:
            log.warning("token vectors that are not needed any more were not all removed: %s", error)

    def upsert(self, points: list[qdrant.Point]) -> None:
        """Write points as one change; none is no change."""
        if points:
            require_room(self._path)
            with self._noting(point.id for point in points):
                self.update(qdrant.UpdateOperation.upsert_points(points))

    def delete(self, ids: Sequence[uuid.UUID]) -> None:
        """Remove points as one change; none is no change."""
        if ids:
            with self._noting(ids):
                self.update(qdrant.UpdateOperation.delete_points(list(ids)))

    def delete_where(self, filter: qdrant.Filter) -> None:
        """Remove the points that pass, as one change; none is no change."""
        with self.lock:
            passing = self.count(filter)
            if passing:
                gone = [] if self.changed is None else self._ids(filter, limit=passing)
                with self._noting(gone):
                    self.update(qdrant.UpdateOperation.delete_points_by_filter(filter))

    def _ids(self, filter: qdrant.Filter, *, limit: int) -> list[Any]:
        with self.shard() as shard:
            request = qdrant.ScrollRequest(limit=limit, filter=filter, with_payload=False)
            return [record.id for record in shard.scroll(request)[0]]

    @contextmanager
    def _noting(self, points: Iterable[Any]) -> Iterator[None]:
        """Hold the lock over a change of some points, and say so to who follows; too many are not followed."""
        with self.lock:
            if self.changed is not None:
                self.changed.update(points)
                if len(self.changed) > EXACT_UP_TO:
                    self.changed = None
            yield

    def count(self, filter: qdrant.Filter) -> int:
        """How many points pass."""
        with self.shard() as shard:
            return shard.count(qdrant.CountRequest(exact=True, filter=filter))

    def retrieve(
        self, ids: Sequence[uuid.UUID], *, payload: bool | list[str] = True, vectors: bool | list[str] = False
    ) -> list[qdrant.Record]:
        """The points that are there among those named, with all or some of their payload's fields and vectors."""
        with self.shard() as shard:
            return shard.retrieve(list(ids), payload, vectors)

    def page(
        self, filter: qdrant.Filter, *, limit: int, offset: uuid.UUID | None = None, payload: bool | list[str] = True
    ) -> tuple[list[Payload], Any]:
        """The payloads of the next points that pass, by id of point, and the id at which to go on (None: the end)."""
        with self.shard() as shard:
            request = qdrant.ScrollRequest(offset=offset, limit=limit, filter=filter, with_payload=payload)
            records, following = shard.scroll(request)
        return [record.payload or {} for record in records], following

    def records(
        self, *, payload: bool | list[str], vectors: bool | list[str], page: int
    ) -> Iterator[list[qdrant.Record]]:
        """Every point, with some of its payload's fields and vectors, so many at a time."""
        offset = None
        while True:
            with self.shard() as shard:
                request = qdrant.ScrollRequest(offset=offset, limit=page, with_payload=payload, with_vector=vectors)
                records, offset = shard.scroll(request)
            yield records
            if offset is None:
                return

    def payloads(self, filter: qdrant.Filter, *, fields: list[str] | None = None) -> list[Payload]:
        """The payloads, or some of their fields, of all points that pass."""
        with self.lock:
            return self.page(filter, limit=max(1, self.count(filter)), payload=fields or True)[0]

    def index_numbers(self, fields: Iterable[str]) -> None:
        """Have an index on fields whose numbers are compared, once there are many points.

        At 20,000 chunks a range reads each payload in 180-320 ms; making the index takes 1 s once,
        and the range 0.1-3 ms from then on.
        """
        with self.shard() as shard:
            info = shard.info()
            if info.points_count >= RANGES_INDEXED_FROM:
                for field in sorted(set(fields) - info.payload_schema.keys()):
                    shard.update(qdrant.UpdateOperation.create_field_index(field, qdrant.PayloadSchemaType.Float))

    def optimize(self) -> bool:
        """Build graphs and drop deleted points where that is worth its while; whether there was anything to do."""
        with self.shard() as shard:
            return shard.optimize()

    def flush(self) -> None:
        """Put everything on disk, in 70-800 ms."""
        with self.shard() as shard:
            shard.flush()

    def make_durable(self, changed: int) -> None:
        """Put on disk what has been changed, a number of chunks since the last call, and tidy up.

        The caller lets nobody write meanwhile, and does not hold the lock, so that others may read.
        """
        self.optimize()
        self._unflushed += changed
        with self.shard() as shard:
            # Windows keeps mapped pages back on a sync of the log alone; there the whole shard is flushed.
            if self._unflushed >= FLUSH_EVERY or os.name == "nt":
                shard.flush()
                self._unflushed = 0
            else:
                sync_log(self._path)
        self._tidy(changed)

    def close(self) -> None:
        """Put everything on disk and release the shard, even if that fails. Closing twice is not an error."""
        with self.lock:
            if self._shard is not None:
                try:
                    try:
                        self.tokens.close()
                    finally:
                        with self.shard() as shard:
                            close_shard(self._path, shard, revision=self.revision)
                finally:
                    self._shard = None
