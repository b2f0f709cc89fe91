"""QdrantEdgeStore: the default store, a folder on this machine, searched in this process."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.scoring import order_of
from m3rag.store.codec import DEFAULT_CODEC
from m3rag.store.edge_changes import EdgeChanges
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_filters import any_of, of_kind, ranges_in
from m3rag.store.edge_folder import check_folder, create_folder, folder_of, is_index
from m3rag.store.edge_points import EXACT_UP_TO, output_of, point_id, query_vector, settings_point
from m3rag.store.edge_upgrade import upgraded
from m3rag.store.edge_view import EdgeView
from m3rag.store.filters import DOCUMENT_ID, EVERYTHING, parse_filter
from m3rag.store.parts import check_k, check_limit, check_query, merged_settings, parse_deletion
from m3rag.store.payload import chunk_from_payload, record_from_payload
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.store.qdrant_ties import best_points
from m3rag.store.token_rows import TokenRows
from m3rag.store.view import View
from m3rag.types import Chunk, Leg, ModelInfo

LEAST_EF = 256
EF_PER_CHUNK = 2
"""How many chunks the graph's walk keeps in view for each one wanted: twice as many find .986 of the best 400 among
100,000, as many .967 (benchmarks/README.md)."""


class QdrantEdgeStore:
    """Chunks in a folder, on Qdrant Edge: dense and lexical in the engine, ColBERT's token vectors beside it.

    One process at a time may have an index open. Writers take turns; readers see a document's old
    version until the new one is complete. Dense vectors and lexical weights that fit into 1 GiB are searched in memory,
    filtered or not, see `EdgeView`.

    A change interrupted at any moment is undone or finished by the next open, see `EdgeChanges`.

    Examples:
        >>> store = QdrantEdgeStore.open_or_create("handbook.index", encoder.info)  # doctest: +SKIP
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Not for callers: use `create`, `open` or `open_or_create`."""
        self._path = path.absolute()  # it stays where it is when the working directory changes
        self._closed = False
        self._engine = EdgeEngine(self._path, manifest)
        try:
            self._manifest = upgraded(self._path, self._engine, manifest)
            self._changes = EdgeChanges(self._engine, manifest.model)
            self._view = EdgeView(self._engine, manifest.model)
        except BaseException:
            self._engine.close()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], model: ModelInfo, *, codec: str = DEFAULT_CODEC) -> QdrantEdgeStore:
        """Make an empty index for a model's representations.

        Args:
            path: The index's folder.
            model: Whose representations.
            codec: How token vectors are kept: `float16`, `int8` (1 byte a dimension), `int4` or `binary`.

        Raises:
            InputError: If the path is a file, a folder with foreign files, or an index already.
            ConfigurationError: If there is no such codec.
        """
        folder = folder_of(path)
        return cls(folder, create_folder(folder, model, codec=codec))

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
        folder = folder_of(path)
        return cls(folder, check_folder(folder, model))

    @classmethod
    def open_or_create(
        cls, path: str | os.PathLike[str], model: ModelInfo, *, codec: str = DEFAULT_CODEC
    ) -> QdrantEdgeStore:
        """Open the index at a path with its own codec, making it first with `codec` if there is none.

        Raises as both do.
        """
        if not cls.exists(path):
            try:
                return cls.create(path, model, codec=codec)
            except InputError:
                if not cls.exists(path):
                    raise
        return cls.open(path, model)  # also where another process has made it meanwhile

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether a folder holds an index, perhaps a damaged one."""
        return is_index(folder_of(path))

    @property
    def path(self) -> Path:
        """The index's folder."""
        return self._path

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""
        return self._manifest

    @property
    def revision(self) -> str:
        """Another text after every change; it outlives a close, not a kill."""
        if self._closed:
            raise StoreError(f"the index at {self._path} is closed: open it again")
        return self._engine.revision

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Raises:
            InputError: If the parts are not what the record promises; the older version stays.
            StoreError: If the engine cannot write.
        """
        self._changes.put_document(document, parts)

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Add single chunks, or replace those of the same id, outside a whole-document write.

        Raises:
            InputError: If chunks and representations differ in number, an id comes twice, the
                dimensions are not the model's, a number is not finite, metadata are not JSON or a text
                is not Unicode; nothing has changed then.
            StoreError: If the engine cannot write.
        """
        self._changes.upsert(chunks, output)

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """Remove single chunks; returns how many there were."""
        return self._changes.delete_chunks(chunk_ids)

    def delete(self, filter: Filter) -> int:
        """Remove every chunk that passes a filter; returns how many there were.

        Raises:
            InputError: If the filter is empty, or makes no sense.
        """
        parse_deletion(filter, of=self._manifest)
        with self._changes.writing:
            with self._engine.lock:
                found = self._engine.payloads(self._visible(filter), fields=["id"])
            return self._changes.delete_chunks([payload["id"] for payload in found])

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were."""
        return self._changes.delete_documents(document_ids)

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""
        records = map(record_from_payload, self._engine.payloads(of_kind("document")))
        return sorted(records, key=lambda record: record.id)

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""
        return self._changes.records([document_id]).get(document_id)

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        chunk_ids = list(chunk_ids)
        found = self._retrieve(chunk_ids, payload=True)
        return [chunk_from_payload(found[id_].payload or {}) for id_ in chunk_ids if id_ in found]

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""
        with self._engine.lock:
            payloads = self._engine.payloads(self._visible({DOCUMENT_ID: document_id}))
        return sorted(map(chunk_from_payload, payloads), key=lambda chunk: (chunk.start, chunk.id))

    def scan(
        self, *, filter: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """One page of the chunks that pass a filter, in an order of the engine's, and the next page's cursor.

        Raises:
            InputError: If `limit` is below 1, or the cursor is not one that `scan` gave.
        """
        check_limit(limit)
        following = _offset(cursor)
        with self._engine.lock:
            visible = self._visible(filter)
            payloads, following = self._engine.page(visible, limit=limit, offset=following)
        return [chunk_from_payload(payload) for payload in payloads], None if following is None else str(following)

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""
        with self._engine.lock:
            return self._engine.count(self._visible(filter))

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `dense` is exact up to 20,000 chunks and documents together, and beyond them once they are in
        memory; else a graph finds nearly the same chunks. `lexical` gives only chunks
        that share a token with the query, `colbert` only chunks with tokens (and nothing for a query
        without any).

        Raises:
            InputError: If `k` is below 1 or the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_k(k)
        check_query(query, leg, self._manifest.model)
        if leg == "colbert":
            return self._best_by_tokens(query, k=k, filter=filter)
        condition = parse_filter(filter, of=self._manifest)
        everything = condition == EVERYTHING
        view = self._in_memory(search=leg == "dense")
        if view is not None:
            return view.candidates(query, leg, k=k, among=None if everything else view.where(condition))
        vector = query_vector(query, leg)
        if vector is None:
            return []
        with self._engine.shard() as shard:
            points = shard.info().points_count
            exact = leg == "lexical" or points <= EXACT_UP_TO
            # Only chunks have vectors, so that all of them need no condition.
            visible = None if everything and not self._changes.hidden else self._visible(filter)
            nearest = qdrant.Query.Nearest(vector, using=leg)

            def search(limit: int) -> list[qdrant.ScoredPoint]:
                params = qdrant.SearchParams(
                    exact=exact,
                    hnsw_ef=max(LEAST_EF, EF_PER_CHUNK * limit),
                    # Twice as many get exact scores as are wanted: bytes alone would leave some of the best behind.
                    quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=EF_PER_CHUNK),
                )
                asked = qdrant.QueryRequest(limit, query=nearest, filter=visible, params=params, with_payload=["id"])
                return list(shard.query(asked))

            found = best_points(search, max(1, min(k, points)))
        return [((point.payload or {})["id"], point.score) for point in found]

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing.

        Raises:
            InputError: If the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_query(query, leg, self._manifest.model)
        if leg == "colbert":
            with self._rows_of(chunk_ids) as (rows, tokens):
                scores = tokens.scores(query, list(rows.values()))[0]
                return dict(zip(rows, scores.tolist(), strict=True))
        view = self._in_memory()
        if view is not None:
            return view.score(query, leg, chunk_ids)
        ids = {point_id("chunk", id_): id_ for id_ in chunk_ids}
        vector, found = query_vector(query, leg), dict[str, float]()
        with self._engine.lock:
            if vector is not None and ids:
                points = self._exact(qdrant.Query.Nearest(vector, using=leg), list(ids))
                found = {ids[_uuid(point)]: point.score for point in points}
            # What the engine does not find shares nothing, or is not stored.
            others = [id_ for id_ in ids.values() if id_ not in found]
            return {**dict.fromkeys(self._retrieve(others) if others else (), 0.0), **found}

    def _exact(self, nearest: qdrant.Query, points: Sequence[Any]) -> list[Any]:
        """Of these points, those that share something with a question, with their scores."""
        hidden = self._changes.hidden
        request = qdrant.QueryRequest(
            limit=len(points),
            query=nearest,
            filter=qdrant.Filter(
                must=[qdrant.HasIdCondition(set(points))],
                must_not=[any_of("revision", hidden)] if hidden else None,
            ),
            params=qdrant.SearchParams(exact=True),
        )
        with self._engine.shard() as shard:
            return list(shard.query(request))

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for; token vectors are float16.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """
        chunk_ids = list(chunk_ids)
        with ExitStack() as stack:
            with self._engine.lock:
                found = self._retrieve(chunk_ids, payload=["row"], vectors=True)
                tokens = stack.enter_context(self._engine.tokens.reading())
            missing = [id_ for id_ in chunk_ids if id_ not in found]
            if missing:
                raise InputError(f"no chunk {missing[0]!r} is stored ({len(missing)} of {len(chunk_ids)} are missing)")
            points = [found[id_] for id_ in chunk_ids]
            vectors: list[Any] = [point.vector for point in points]
            return tokens.added_to(output_of(vectors, self._manifest.model), [_row(point) for point in points])

    def optimize(self) -> bool:
        """Build the graph of dense vectors and drop deleted points where that is worth its while.

        Called after every change, when it costs microseconds unless about 20,000 chunks have been added or a
        fifth deleted since; then about 0.5 ms a chunk.

        Returns:
            Whether there was anything to do.
        """
        return self._engine.optimize()

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that the collection remembers beside its chunks: a copy."""
        found = self._engine.retrieve([point_id("settings", "")])
        values: dict[str, Any] = json.loads((found[0].payload or {})["settings"]) if found else {}
        return values

    def update_settings(self, values: Mapping[str, Any]) -> None:
        """Remember some values with those that are there; None forgets a key. Durable, all or none.

        Raises:
            InputError: If a key is not a string, or a value not JSON.
        """
        with self._changes.writing:
            # One point, so that the engine's log makes it whole and repairs it with all the rest.
            self._engine.upsert([settings_point(merged_settings(self.settings, values))])
            self._engine.make_durable(1)

    def close(self) -> None:
        """Put everything on disk and release the index. Closing twice is not an error.

        In a process that was forked from the one that opened it, nothing happens: the index is still the parent's.
        """
        if not self._engine.is_ours:
            return
        with self._changes.writing:
            self._closed = True
            self._view.close()
            self._engine.close()

    def __enter__(self) -> QdrantEdgeStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_memory(self, *, search: bool = False) -> View | None:
        """The chunks to search, None to let the engine do it: the view sees what is still to be hidden."""
        with self._engine.lock:
            return None if self._changes.hidden else self._view.current(search=search)

    @contextmanager
    def _rows_of(self, chunk_ids: Sequence[str]) -> Iterator[tuple[dict[str, int], TokenRows]]:
        """The rows of the visible chunks among those named, by id, and the token vectors of the same moment."""
        with ExitStack() as stack:
            with self._engine.lock:
                view = self._in_memory()
                if view is None:
                    rows = {id_: _row(point) for id_, point in self._retrieve(chunk_ids, payload=["row"]).items()}
                else:
                    rows = {id_: int(view.rows[position]) for id_, position in view.find(chunk_ids).items()}
                tokens = stack.enter_context(self._engine.tokens.reading())
            yield rows, tokens

    def _best_by_tokens(self, query: M3Output, *, k: int, filter: Filter | None) -> list[tuple[str, float]]:
        condition = parse_filter(filter, of=self._manifest)
        with ExitStack() as stack:
            with self._engine.lock:
                view = self._in_memory()
                if view is None:
                    payloads = self._engine.payloads(self._visible(filter), fields=["id", "row"])
                    ids, rows = [one["id"] for one in payloads], [one["row"] for one in payloads]
                else:
                    positions = view.where(condition)
                    ids, rows = view.ids(positions), view.rows[positions].tolist()
                tokens = stack.enter_context(self._engine.tokens.reading())
            scores, possible = tokens.scores(query, rows)
        ids = [ids[i] for i in np.flatnonzero(possible)]
        found = scores[possible]
        return [(ids[i], float(found[i])) for i in order_of(found, ids)[:k]]

    def _visible(self, filter: Filter | None) -> qdrant.Filter:
        condition = parse_filter(filter, of=self._manifest)
        compared = ranges_in(condition)
        if compared:
            self._engine.index_numbers(compared)
        return self._changes.visible(condition)

    def _retrieve(
        self, chunk_ids: Sequence[str], *, payload: bool | list[str] = False, vectors: bool = False
    ) -> dict[str, qdrant.Record]:
        """The visible points among the chunks named, by chunk id."""
        ids = {point_id("chunk", id_): id_ for id_ in chunk_ids}
        with self._engine.lock:
            hidden = self._changes.hidden
            fields = payload
            if hidden and not isinstance(payload, bool):
                fields = [*payload, "revision"]
            elif hidden and not payload:
                fields = ["revision"]
            found = self._engine.retrieve(list(ids), payload=fields, vectors=vectors)
        return {ids[_uuid(one)]: one for one in found if not hidden or (one.payload or {})["revision"] not in hidden}


def _offset(cursor: str | None) -> uuid.UUID | None:
    try:
        return None if cursor is None else uuid.UUID(cursor)
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"scan: {cursor!r:.80} is not a cursor: give back what the page before gave") from None


def _row(point: qdrant.Record) -> int:
    return int((point.payload or {})["row"])


def _uuid(point: qdrant.Record | qdrant.ScoredPoint) -> Any:
    return point.id
