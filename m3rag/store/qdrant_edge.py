"""QdrantEdgeStore: the default store, a folder on this machine, searched in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import qdrant_edge as qdrant

from m3rag.errors import InputError, M3RagError, StoreError
from m3rag.output import M3Output
from m3rag.store.edge_folder import check_folder, create_folder, is_index, load_shard, sync_log
from m3rag.store.edge_points import (
    chunk_filter,
    chunk_point,
    document_point,
    of_kind,
    output_of,
    pending_point,
    point_id,
    query_vector,
    revision,
    score_scale,
)
from m3rag.store.filters import DOCUMENT_ID
from m3rag.store.parts import check_k, check_query, checked_parts
from m3rag.store.payload import chunk_from_payload, record_from_payload
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.types import Chunk, Leg, ModelInfo

UPSERT_SIZE = 64  # points a write: bounds memory and the time readers wait
FLUSH_EVERY = 2_000  # chunks: bounds the write-ahead log, which the next open replays after a kill
EXACT_UP_TO = 20_000  # points: an exact dense scan takes milliseconds, the graph would only lose recall


class QdrantEdgeStore:
    """Chunks in a folder, on Qdrant Edge: dense, lexical and ColBERT in one engine.

    One process at a time may have an index open. Writers take turns; readers see a document's old
    version until the new one is complete.

    A change is made so that a kill at any moment can be repaired by one rule: a `pending` point
    names the document, the new chunks are written, the document's record is replaced (from here on
    the change has happened), chunks that are not of the record's version are deleted, and so is
    the `pending` point. Opening applies the last two steps wherever a `pending` point is left.

    Examples:
        >>> store = QdrantEdgeStore.open_or_create("handbook.index", encoder.info)  # doctest: +SKIP
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Not for callers: use `create`, `open` or `open_or_create`."""
        self._path = path
        self._manifest = manifest
        self._lock = threading.RLock()  # held around calls of the engine
        self._writing = threading.RLock()  # held by a writer over a whole document
        self._hidden: dict[str, str] = {}  # document id -> the revision being written
        self._unflushed = 0
        self._shard: qdrant.EdgeShard | None = load_shard(path)
        try:
            for document_id in self._pending():
                self._settle(document_id)
        except BaseException:
            self._shard.close()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], model: ModelInfo) -> QdrantEdgeStore:
        """Make an empty index for a model's representations.

        Raises:
            InputError: If the path is a file, a folder with foreign files, or an index already.
        """
        return cls(Path(path), create_folder(Path(path), model))

    @classmethod
    def open(cls, path: str | os.PathLike[str], model: ModelInfo | None = None) -> QdrantEdgeStore:
        """Open an index, repairing what a killed process left behind.

        Args:
            path: The index's folder.
            model: The model that will be used with it; None to open it whoever made it.

        Raises:
            IndexMissingError: If there is no index at the path.
            IndexMismatchError: If it was made by another model, or by a newer m3rag.
            IndexLockedError: If another process has it open.
            StoreError: If it is damaged.
        """
        return cls(Path(path), check_folder(Path(path), model))

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], model: ModelInfo) -> QdrantEdgeStore:
        """Open the index at a path, making it first if there is none. Raises as both do."""
        return cls.open(path, model) if cls.exists(path) else cls.create(path, model)

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether a folder holds an index, perhaps a damaged one."""
        return is_index(Path(path))

    @property
    def path(self) -> Path:
        """The index's folder."""
        return self._path

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""
        return self._manifest

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Raises:
            InputError: If the parts are not what the record promises; the older version stays.
            StoreError: If the engine cannot write.
        """
        with self._writing:
            committed = document_point(document)
            new = revision(document.id, document.version)
            before = self.document(document.id)
            try:
                # The same version again writes the same chunks over themselves: nothing to hide.
                if before is None or before.version != document.version:
                    self._hidden[document.id] = new
                self._upsert([pending_point(document.id)])
                for chunks, output in checked_parts(document, parts, model=self._manifest.model):
                    self._refuse_taken([chunk.id for chunk in chunks], new)
                    for a in range(0, len(chunks), UPSERT_SIZE):
                        few = zip(chunks[a : a + UPSERT_SIZE], output[a : a + UPSERT_SIZE], strict=True)
                        self._upsert([chunk_point(chunk, one, revision=new) for chunk, one in few])
                with self._lock:
                    self._upsert([committed])
                    self._settle(document.id)
            except BaseException:
                self._settle(document.id)
                raise
            self._unflushed += document.chunks
            self._make_durable()

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were."""
        with self._writing, self._lock:
            stored = [id_ for id_ in dict.fromkeys(document_ids) if self.document(id_) is not None]
            if not stored:
                return 0
            self._upsert([pending_point(id_) for id_ in stored])
            self._update(qdrant.UpdateOperation.delete_points([point_id("document", id_) for id_ in stored]))
            for id_ in stored:
                self._settle(id_)
            self._make_durable()
            return len(stored)

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""
        records = map(record_from_payload, self._payloads(of_kind("document")))
        return sorted(records, key=lambda record: record.id)

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""
        with self._engine() as shard:
            found = shard.retrieve([point_id("document", document_id)], True, False)
        return record_from_payload(found[0].payload or {}) if found else None

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        found = self._retrieve(chunk_ids, payload=True)
        return [chunk_from_payload(found[id_].payload or {}) for id_ in chunk_ids if id_ in found]

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""
        payloads = self._payloads(self._visible({DOCUMENT_ID: document_id}))
        return sorted(map(chunk_from_payload, payloads), key=lambda chunk: (chunk.start, chunk.id))

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""
        with self._engine() as shard:
            return shard.count(qdrant.CountRequest(exact=True, filter=self._visible(filter)))

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `dense` is exact up to 20,000 chunks, then approximate in which chunks it finds. `lexical`
        gives only chunks that share a token with the query, `colbert` only chunks with tokens (and
        nothing for a query without any).

        Raises:
            InputError: If `k` is below 1 or the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_k(k)
        check_query(query, leg, self._manifest.model)
        vector = query_vector(query, leg)
        if vector is None:
            return []
        with self._engine() as shard:
            points = shard.info().points_count
            limit = max(1, min(k, points))
            exact = leg != "dense" or points <= EXACT_UP_TO
            request = qdrant.QueryRequest(
                limit=limit,
                query=qdrant.Query.Nearest(vector, using=leg),
                filter=self._visible(filter),
                params=qdrant.SearchParams(exact=exact, hnsw_ef=max(128, 2 * limit)),
                with_payload=["id"],
            )
            found = shard.query(request)
        scale = score_scale(query, leg)
        pairs = [((point.payload or {})["id"], point.score / scale) for point in found]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing.

        Raises:
            InputError: If the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_query(query, leg, self._manifest.model)
        with self._lock:
            scores = dict.fromkeys(self._retrieve(chunk_ids), 0.0)
            vector = query_vector(query, leg)
            if vector is None or not scores:
                return scores
            ids = {point_id("chunk", id_): id_ for id_ in scores}
            request = qdrant.QueryRequest(
                limit=len(ids),
                query=qdrant.Query.Nearest(vector, using=leg),
                filter=qdrant.Filter(must=[qdrant.HasIdCondition(set(ids))]),
                params=qdrant.SearchParams(exact=True),
            )
            with self._engine() as shard:
                found = shard.query(request)
        scale = score_scale(query, leg)
        scores.update({ids[_uuid(point)]: point.score / scale for point in found})
        return scores

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for; token vectors are float16.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """
        found = self._retrieve(chunk_ids, vectors=True)
        missing = [id_ for id_ in chunk_ids if id_ not in found]
        if missing:
            raise InputError(f"no chunk {missing[0]!r} is stored ({len(missing)} of {len(chunk_ids)} are missing)")
        vectors: list[Any] = [found[id_].vector for id_ in chunk_ids]
        return output_of(vectors, self._manifest.model)

    def optimize(self) -> bool:
        """Build the graph of dense vectors and drop deleted points where that is worth its while.

        Called after every change, when it costs microseconds unless about 1 GB has been added or a
        fifth deleted since; then about 0.5 ms a chunk.

        Returns:
            Whether there was anything to do.
        """
        with self._engine() as shard:
            return shard.optimize()

    def close(self) -> None:
        """Put everything on disk and release the index. Closing twice is not an error."""
        with self._writing, self._lock:
            if self._shard is not None:
                with self._engine() as shard:
                    shard.close()
                self._shard = None

    def __enter__(self) -> QdrantEdgeStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _engine(self) -> Iterator[qdrant.EdgeShard]:
        with self._lock:
            if self._shard is None:
                raise StoreError(f"the index at {self._path} is closed: open it again")
            try:
                yield self._shard
            except M3RagError:
                raise
            except Exception as error:
                raise StoreError(f"the index at {self._path} failed: {error}") from error

    def _visible(self, filter: Filter | None) -> qdrant.Filter:
        return chunk_filter(filter, without=list(self._hidden.values()))

    def _update(self, operation: qdrant.UpdateOperation) -> None:
        with self._engine() as shard:
            shard.update(operation)

    def _upsert(self, points: list[qdrant.Point]) -> None:
        self._update(qdrant.UpdateOperation.upsert_points(points))

    def _retrieve(
        self, chunk_ids: Sequence[str], *, payload: bool = False, vectors: bool = False
    ) -> dict[str, qdrant.Record]:
        """The visible points among the chunks named, by chunk id."""
        ids = {point_id("chunk", id_): id_ for id_ in chunk_ids}
        with self._engine() as shard:
            found = shard.retrieve(list(ids), True if payload else ["revision"], vectors)
            hidden = set(self._hidden.values())
        return {ids[_uuid(record)]: record for record in found if (record.payload or {})["revision"] not in hidden}

    def _payloads(self, filter: qdrant.Filter) -> list[dict[str, Any]]:
        with self._engine() as shard:
            limit = max(1, shard.count(qdrant.CountRequest(exact=True, filter=filter)))
            records, _ = shard.scroll(qdrant.ScrollRequest(limit=limit, filter=filter, with_payload=True))
        return [record.payload or {} for record in records]

    def _pending(self) -> list[str]:
        return [payload["document_id"] for payload in self._payloads(of_kind("pending"))]

    def _refuse_taken(self, chunk_ids: Sequence[str], revision: str) -> None:
        with self._engine() as shard:
            found = shard.retrieve([point_id("chunk", id_) for id_ in chunk_ids], ["id", "revision"], False)
        for payload in (record.payload or {} for record in found):
            if payload["revision"] != revision:
                raise InputError(
                    f"chunk {payload['id']!r} is already stored with another document or version: chunk ids must differ"
                )

    def _settle(self, document_id: str) -> None:
        """Make a document's chunks those of its record (none without one), and the change no longer pending."""
        with self._lock:
            record = self.document(document_id)
            kept = [revision(record.id, record.version)] if record else []
            stale = chunk_filter({DOCUMENT_ID: document_id}, without=kept)
            self._update(qdrant.UpdateOperation.delete_points_by_filter(stale))
            self._update(qdrant.UpdateOperation.delete_points([point_id("pending", document_id)]))
            self._hidden.pop(document_id, None)

    def _make_durable(self) -> None:
        with self._engine() as shard:
            shard.optimize()
            # Windows keeps mapped pages back on such a sync; there the whole shard is flushed.
            if self._unflushed >= FLUSH_EVERY or os.name == "nt":
                shard.flush()
                self._unflushed = 0
            else:
                sync_log(self._path)


def _uuid(point: qdrant.Record | qdrant.ScoredPoint) -> Any:
    return point.id
