"""MemoryStore: brute force in numpy, the oracle that every other store is tested against."""

from __future__ import annotations

import heapq
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from m3rag._version import __version__
from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.scoring import LEG_SCORES
from m3rag.store.codec import codec_named
from m3rag.store.filters import holds, parse_filter
from m3rag.store.parts import (
    check_chunks,
    check_k,
    check_limit,
    check_query,
    checked_parts,
    merged_settings,
    parse_deletion,
)
from m3rag.store.payload import chunk_from_payload, chunk_to_payload, record_from_payload, record_to_payload
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.types import Chunk, Leg, ModelInfo

CURSOR = "after "
"""What a cursor begins with; the last chunk's id follows."""


@dataclass(frozen=True, slots=True)
class _Stored:
    record: DocumentRecord
    chunks: tuple[Chunk, ...]
    output: M3Output


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All that is stored at one moment; readers work on it without a lock."""

    documents: dict[str, _Stored]
    chunks: tuple[Chunk, ...]
    output: M3Output
    rows: dict[str, int]
    revision: str = field(default_factory=lambda: uuid.uuid4().hex)


class MemoryStore:
    """A store that lives as long as the process and computes every score by brute force.

    Exact in every leg, which makes it the reference for the other stores and enough for a few
    thousand chunks.

    Args:
        model: The model whose representations will be stored.
        codec: How token vectors are kept (`m3rag.store.codec`). In memory it saves nothing: what is
            kept is what the codec's bytes stand for.

    Raises:
        ConfigurationError: If there is no such codec.
    """

    def __init__(self, model: ModelInfo, *, codec: str = "float16") -> None:
        self._codec = codec_named(codec)
        self._manifest = Manifest(model=model, m3rag_version=__version__, codec=codec)
        self._writing = threading.RLock()
        self._closed = False
        self._settings = "{}"
        self._state = self._snapshot({})

    @property
    def closed(self) -> bool:
        """Whether it was closed, and its chunks are gone for good."""
        return self._closed

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""
        return self._manifest

    @property
    def revision(self) -> str:
        """Another text after every change."""
        return self._open.revision

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Raises:
            InputError: If the parts are not what the record promises; the older version stays.
        """
        with self._writing:
            chunks: list[Chunk] = []
            outputs = [self._no_output()]
            record = record_from_payload(record_to_payload(document))
            for part, output in checked_parts(document, parts, model=self._manifest.model):
                chunks += map(_as_kept, part)
                outputs.append(self._as_coded(output))
            others = {id_: stored for id_, stored in self._open.documents.items() if id_ != document.id}
            for chunk in chunks:
                row = self._open.rows.get(chunk.id)
                if row is not None and self._open.chunks[row].document_id != document.id:
                    raise InputError(f"chunk {chunk.id!r} is already stored with another document")
            stored = _Stored(record, tuple(chunks), M3Output.concatenate(outputs))
            self._state = self._snapshot({**others, document.id: stored})

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Add single chunks, or replace those of the same id, outside a whole-document write.

        Raises:
            InputError: If chunks and representations differ in number, an id comes twice, the
                dimensions are not the model's, a number is not finite, metadata are not JSON or a text
                is not Unicode.
        """
        with self._writing:
            check_chunks(chunks, output, model=self._manifest.model)
            kept = [_as_kept(chunk) for chunk in chunks]
            self._state = self._snapshot(self._changed({chunk.id for chunk in kept}, kept, self._as_coded(output)))

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """Remove single chunks; returns how many there were."""
        with self._writing:
            gone = {id_ for id_ in chunk_ids if id_ in self._open.rows}
            self._state = self._snapshot(self._changed(gone, [], self._no_output()))
            return len(gone)

    def delete(self, filter: Filter) -> int:
        """Remove every chunk that passes a filter; returns how many there were.

        Raises:
            InputError: If the filter is empty, or makes no sense.
        """
        condition = parse_deletion(filter)
        with self._writing:
            return self.delete_chunks([chunk.id for chunk in self._open.chunks if holds(condition, chunk)])

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were."""
        with self._writing:
            before = self._open.documents
            kept = {id_: stored for id_, stored in before.items() if id_ not in set(document_ids)}
            self._state = self._snapshot(kept)
            return len(before) - len(kept)

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""
        return sorted((stored.record for stored in self._open.documents.values()), key=lambda record: record.id)

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""
        stored = self._open.documents.get(document_id)
        return stored.record if stored else None

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""
        stored = self._open.documents.get(document_id)
        return sorted(stored.chunks, key=lambda chunk: (chunk.start, chunk.id)) if stored else []

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        state = self._open
        return [state.chunks[state.rows[id_]] for id_ in chunk_ids if id_ in state.rows]

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""
        condition = parse_filter(filter)
        return sum(holds(condition, chunk) for chunk in self._open.chunks)

    def scan(
        self, *, filter: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """One page of the chunks that pass a filter, ordered by id, and the cursor of the next page.

        Raises:
            InputError: If `limit` is below 1, or the cursor is not one that `scan` gave.
        """
        check_limit(limit)
        if cursor is not None and not (isinstance(cursor, str) and cursor.startswith(CURSOR)):
            raise InputError(f"scan: {cursor!r:.80} is not a cursor: give back what the page before gave")
        last = None if cursor is None else cursor.removeprefix(CURSOR)
        condition = parse_filter(filter)
        found = (chunk for chunk in self._open.chunks if last is None or chunk.id > last)
        page = heapq.nsmallest(limit + 1, (c for c in found if holds(condition, c)), key=lambda chunk: chunk.id)
        return page[:limit], CURSOR + page[limit - 1].id if len(page) > limit else None

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `lexical` gives only chunks that share a token with the query, `colbert` only chunks with
        tokens (and nothing for a query without any).

        Raises:
            InputError: If `k` is below 1 or the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_k(k)
        check_query(query, leg, self._manifest.model)
        condition = parse_filter(filter)
        state = self._open
        scores = _scores(query, leg, state.output)
        possible = np.ones(len(scores), bool)
        if leg == "lexical":
            possible = scores > 0
        elif leg == "colbert":
            possible = (np.diff(state.output.offsets) > 0) & (len(query.colbert) > 0)
        found = [
            (chunk.id, float(score))
            for chunk, score, kept in zip(state.chunks, scores, possible, strict=True)
            if kept and holds(condition, chunk)
        ]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing.

        Raises:
            InputError: If the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_query(query, leg, self._manifest.model)
        state = self._open
        stored = [id_ for id_ in dict.fromkeys(chunk_ids) if id_ in state.rows]
        scores = _scores(query, leg, state.output[[state.rows[id_] for id_ in stored]])
        return dict(zip(stored, scores.tolist(), strict=True))

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """
        state, chunk_ids = self._open, list(chunk_ids)
        missing = [id_ for id_ in chunk_ids if id_ not in state.rows]
        if missing:
            raise InputError(f"no chunk {missing[0]!r} is stored ({len(missing)} of {len(chunk_ids)} are missing)")
        return state.output[[state.rows[id_] for id_ in chunk_ids]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that the collection remembers beside its chunks: a copy."""
        with self._writing:
            self._refuse_closed()
            values: dict[str, Any] = json.loads(self._settings)
            return values

    def update_settings(self, values: Mapping[str, Any]) -> None:
        """Remember some values with those that are there; None forgets a key.

        Raises:
            InputError: If a key is not a string, or a value not JSON.
        """
        with self._writing:
            self._settings = merged_settings(self.settings, values)

    def close(self) -> None:
        """Forget everything; using the store afterwards is an error. Closing twice is not."""
        with self._writing:
            self._closed = True
            self._state = self._snapshot({})

    @property
    def _open(self) -> _Snapshot:
        self._refuse_closed()
        return self._state

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError("the store is closed: make a new MemoryStore")

    def _changed(self, gone: Collection[str], new: Sequence[Chunk], output: M3Output) -> dict[str, _Stored]:
        """The documents without some chunks, and with others."""
        joining: dict[str, list[int]] = defaultdict(list)
        for row, chunk in enumerate(new):
            joining[chunk.document_id].append(row)
        before = self._open.documents
        documents = {}
        for id_ in dict.fromkeys([*before, *joining]):
            stored = before.get(id_) or _Stored(DocumentRecord(id_, id_, "", 0), (), self._no_output())
            kept = [row for row, chunk in enumerate(stored.chunks) if chunk.id not in gone]
            if len(kept) == len(stored.chunks) and id_ not in joining:
                documents[id_] = stored
                continue
            chunks = (*(stored.chunks[row] for row in kept), *(new[row] for row in joining[id_]))
            both = M3Output.concatenate([stored.output[kept], output[joining[id_]]])
            documents[id_] = _Stored(replace(stored.record, chunks=len(chunks)), chunks, both)
        return documents

    def _snapshot(self, documents: dict[str, _Stored]) -> _Snapshot:
        # What is made of single chunks goes with the last of them.
        documents = {id_: stored for id_, stored in documents.items() if stored.record.version or stored.chunks}
        chunks = tuple(chunk for stored in documents.values() for chunk in stored.chunks)
        output = M3Output.concatenate([self._no_output(), *(stored.output for stored in documents.values())])
        return _Snapshot(documents, chunks, output, {chunk.id: row for row, chunk in enumerate(chunks)})

    def _as_coded(self, output: M3Output) -> M3Output:
        codes = self._codec.encode(output.colbert)
        return replace(output, colbert=self._codec.decode(codes, dim=output.colbert.shape[1]))

    def _no_output(self) -> M3Output:
        model = self._manifest.model
        return M3Output.empty(dense_dim=model.dense_dim, vocab_size=model.vocab_size, colbert_dim=model.colbert_dim)


def _scores(query: M3Output, leg: Leg, passages: M3Output) -> npt.NDArray[np.floating]:
    """The scores `(n,)` of one query: the same for the same vector anywhere, which BLAS in float32 is not."""
    scores: npt.NDArray[np.floating] = (
        np.einsum("ij,j->i", passages.dense, query.dense[0].astype(np.float64))
        if leg == "dense"
        else LEG_SCORES[leg](query, passages)[0]
    )
    return scores


def _as_kept(chunk: Chunk) -> Chunk:
    # Through the stored form and back, so that nothing is kept that no other store could keep, and
    # nothing the caller may change later.
    return chunk_from_payload(chunk_to_payload(chunk))
