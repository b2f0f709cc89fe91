"""The reading half of a QdrantStore."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from qdrant_client import models

from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.edge_points import output_of
from m3rag.store.filters import parse_filter
from m3rag.store.parts import check_k, check_limit, check_query
from m3rag.store.payload import chunk_from_payload, record_from_payload
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.store.qdrant_changes import SIGHT, Changes, View
from m3rag.store.qdrant_connection import PAGE, Connection, Fields, is_cursor
from m3rag.store.qdrant_points import (
    Engine,
    any_of,
    engine_condition,
    has_id,
    of_kind,
    point_id,
    query_vector,
    score_scale,
    vectors_of,
    where,
)
from m3rag.store.qdrant_ties import best_points
from m3rag.store.terms import is_unicode
from m3rag.types import Chunk, Leg

T = TypeVar("T")

LARGE_K = 10_000  # results: a server makes room for as many as are asked for


class QdrantReads:
    """What a QdrantStore gives without changing anything; every call is of one moment.

    Args:
        connection: The collection.
        manifest: Whose it is.
    """

    def __init__(self, connection: Connection, manifest: Manifest) -> None:
        self._connection = connection
        self._manifest = manifest
        self._changes = Changes(connection)

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""
        return self._manifest

    @property
    def revision(self) -> str | None:
        """Another text after every change of any client, None before the first; asking costs one small request."""
        return self._changes.epoch() or None

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""

        def stored(view: View) -> list[DocumentRecord]:
            found = self._connection.all(where(of_kind("document")))
            return self._changes.counted((record_from_payload(point.payload or {}) for point in found), view)

        return sorted(filter(_stands, self._changes.stable(stored, _as_read)), key=lambda record: record.id)

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""

        def stored(view: View) -> list[DocumentRecord]:
            return self._changes.counted(self._changes.records([document_id]).values(), view)

        return next(filter(_stands, self._changes.stable(stored, _as_read)), None)

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        chunk_ids = list(chunk_ids)
        found = self._retrieve(chunk_ids, fields=True)
        return [chunk_from_payload(found[id_].payload or {}) for id_ in chunk_ids if id_ in found]

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""
        if not is_unicode(document_id):
            return []
        document = any_of("document_id", [document_id])
        found = self._changes.stable(lambda view: self._connection.all(view.chunks(document)), self._changes.shown)
        chunks = (chunk_from_payload(point.payload or {}) for point in found)
        return sorted(chunks, key=lambda chunk: (chunk.start, chunk.id))

    def scan(
        self, *, filter: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """One page of the chunks that pass a filter, in an order of the server's, and the next page's cursor.

        Raises:
            InputError: If `limit` is below 1, or the cursor is not one that `scan` gave.
        """
        check_limit(limit)
        condition = engine_condition(parse_filter(filter, of=self._manifest))
        if cursor is not None and not is_cursor(cursor):
            raise InputError(f"scan: {cursor!r:.80} is no cursor of this store: give what the page before gave")

        def page(view: View) -> tuple[list[models.Record], str | None]:
            return self._connection.page(view.chunks(condition), limit=limit, offset=cursor)

        found, following = self._changes.stable(page, lambda got: (self._changes.shown(got[0]), got[1]))
        return [chunk_from_payload(point.payload or {}) for point in found], following

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""
        return self._count(engine_condition(parse_filter(filter, of=self._manifest)))

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `dense` is approximate in which chunks it finds once the server has built a graph. `lexical`
        gives only chunks that share a token with the query, `colbert` only chunks with tokens (and
        nothing for a query without any).

        Raises:
            InputError: If `k` is below 1, the query is not the output of one text of this model, or
                its token vectors are more than the server takes.
            ConfigurationError: If the model does not give the leg.
        """
        check_k(k)
        check_query(query, leg, self._manifest.model)
        condition = engine_condition(parse_filter(filter, of=self._manifest))
        vector = query_vector(query, leg)
        if vector is None:
            return []
        most = k if k <= LARGE_K else max(1, min(k, self._count(condition)))

        def search(view: View) -> Sequence[models.ScoredPoint]:
            visible = view.chunks(condition)

            def nearest(limit: int) -> Sequence[models.ScoredPoint]:
                return self._connection.nearest(
                    vector, leg, filter=visible, limit=limit, exact=leg != "dense", fields=SIGHT
                )

            return best_points(nearest, most)

        found = self._changes.stable(search, self._changes.shown)
        scale = score_scale(query, leg)
        return [((point.payload or {})["id"], point.score / scale) for point in found]

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing.

        Raises:
            InputError: If the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_query(query, leg, self._manifest.model)
        vector = query_vector(query, leg)
        scores = dict.fromkeys(self._retrieve(chunk_ids, fields=SIGHT), 0.0)
        if vector is None or not scores:
            return scores
        scale = score_scale(query, leg)
        ids = [point_id("chunk", id_) for id_ in scores]
        for a in range(0, len(ids), PAGE):
            some = ids[a : a + PAGE]
            found = self._connection.nearest(
                vector, leg, filter=where(has_id(some)), limit=len(some), exact=True, fields=["id"]
            )
            scores.update({(point.payload or {})["id"]: point.score / scale for point in found})
        return scores

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for; token vectors are float16.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """
        chunk_ids = list(chunk_ids)
        found = self._retrieve(chunk_ids, fields=SIGHT, vectors=True)
        missing = [id_ for id_ in chunk_ids if id_ not in found]
        if missing:
            raise InputError(f"no chunk {missing[0]!r} is stored ({len(missing)} of {len(chunk_ids)} are missing)")
        return output_of([vectors_of(found[id_]) for id_ in chunk_ids], self._manifest.model)

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that the collection remembers beside its chunks: a copy."""
        found = self._connection.retrieve([point_id("settings", "")], settled=True)
        held = dict((found[0].payload or {}).items()) if found else {}
        held.pop("kind", None)
        values = {bytes.fromhex(key).decode(): json.loads(text) for key, text in held.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _count(self, condition: Engine) -> int:
        return self._changes.stable(lambda view: self._connection.count(view.chunks(condition)), _as_read)

    def _retrieve(self, chunk_ids: Sequence[str], *, fields: Fields, vectors: bool = False) -> dict[str, models.Record]:
        """The visible points among the chunks named, by chunk id."""
        ids = {point_id("chunk", id_): id_ for id_ in chunk_ids}
        if not ids:
            self._connection.check_open()
            return {}

        def look(view: View) -> list[models.Record]:
            found = self._connection.retrieve(list(ids), fields=fields, vectors=vectors)
            return [point for point in found if view.shows(point.payload or {})]

        found = self._changes.stable(look, self._changes.shown)
        return {ids[str(point.id)]: point for point in found}


def _as_read(found: T) -> T:
    return found


def _stands(record: DocumentRecord) -> bool:
    # What is made of single chunks is made before the first and goes with the last of them.
    return bool(record.version or record.chunks)
