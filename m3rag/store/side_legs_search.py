"""Reading and searching a side store: every method of `Store` that changes nothing, exact in each leg."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.filters import DOCUMENT_ID, EVERYTHING, AnyOf, Condition, parse_filter
from m3rag.store.parts import check_k, check_limit, check_query
from m3rag.store.payload import chunk_from_payload
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.store.side_legs import SideLegs
from m3rag.store.side_legs_filter import mask_in
from m3rag.store.side_legs_read import all_records, find_record, packed_of, payloads_of
from m3rag.store.side_legs_rows import unpack
from m3rag.store.terms import is_unicode
from m3rag.store.token_rows import TokenRows
from m3rag.store.view import Positions, View, by_id
from m3rag.types import Chunk, Leg

CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
"""The row of the last chunk given, and of the last one there was when the first page was."""


class SideReader:
    """What can be asked of a side store.

    Args:
        side: The side store.
    """

    def __init__(self, side: SideLegs) -> None:
        self._side = side

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""
        return self._side.manifest

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that the collection remembers beside its chunks: a copy."""
        self._side.file.require_open()
        found: dict[str, Any] = json.loads(self._side.meta.get("settings", "{}"))
        return found

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""
        with self._side.reading() as (_, connection):
            return all_records(connection)

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""
        if not is_unicode(document_id):
            return None
        with self._side.reading() as (_, connection):
            return find_record(connection, document_id)

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        chunk_ids = list(chunk_ids)
        with self._side.reading() as (view, connection):
            found = view.find(chunk_ids)
            chunks = dict(zip(found, _chunks(view, connection, found.values()), strict=True))
        return [chunks[id_] for id_ in chunk_ids if id_ in chunks]

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""
        if not is_unicode(document_id):
            return []
        with self._side.reading() as (view, connection):
            positions = passing(view, connection, AnyOf(DOCUMENT_ID, (document_id,)))
            return sorted(_chunks(view, connection, positions.tolist()), key=lambda chunk: (chunk.start, chunk.id))

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""
        condition = parse_filter(filter, of=self.manifest)
        with self._side.reading() as (view, connection):
            return len(passing(view, connection, condition))

    def scan(
        self, *, filter: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """One page of the chunks that pass a filter, in the order in which they were written.

        What is written after the first page is on no page, also where it replaces a chunk.

        Raises:
            InputError: If `limit` is below 1, or the cursor is none that this store gives.
        """
        check_limit(limit)
        found = CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if cursor is not None and found is None:
            raise InputError(f"cursor {cursor!r:.80}: give the one that the page before came with")
        condition = parse_filter(filter, of=self.manifest)
        with self._side.reading() as (view, connection):
            positions = passing(view, connection, condition)
            # A chunk that is replaced gets a new row: without the last one a page would have it again, or never end.
            after, last = map(int, found.groups()) if found else (0, view.rows.max(initial=0))
            rows = view.rows[positions]
            left = positions[(rows > after) & (rows <= last)]
            chunks = _chunks(view, connection, left[:limit].tolist())
            return chunks, f"{view.rows[left[limit - 1]]}-{last}" if len(left) > limit else None

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `lexical` gives only chunks that share a token with the query, `colbert` only chunks with
        tokens (and nothing for a query without any).

        Raises:
            InputError: If `k` is below 1 or the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_k(k)
        check_query(query, leg, self.manifest.model)
        condition = parse_filter(filter, of=self.manifest)
        with self._side.reading() as (view, connection):
            near = self._near(query, view, k=k) if leg == "dense" and condition == EVERYTHING else None
            positions = passing(view, connection, condition) if near is None else near
            if leg != "colbert":
                return view.candidates(query, leg, k=k, among=positions)
            scores, possible = self._colbert_scores(query, view, connection, positions)
            return view.best(positions[possible], scores[possible], k)

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing.

        Raises:
            InputError: If the query is not the output of one text of this model.
            ConfigurationError: If the model does not give the leg.
        """
        check_query(query, leg, self.manifest.model)
        with self._side.reading() as (view, connection):
            if leg != "colbert":
                return view.score(query, leg, chunk_ids)
            found = view.find(chunk_ids)
            positions = np.array(sorted(found.values()), np.int64)
            scores, _ = self._colbert_scores(query, view, connection, positions)
            return by_id(found, positions, scores)

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for; token vectors are what their codec keeps of them.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """
        chunk_ids = list(chunk_ids)
        with self._side.reading() as (view, connection):
            found = view.find(chunk_ids)
            missing = [id_ for id_ in chunk_ids if id_ not in found]
            if missing:
                raise InputError(f"no chunk {missing[0]!r} is stored ({len(missing)} of {len(chunk_ids)} are missing)")
            rows = [int(view.rows[found[id_]]) for id_ in chunk_ids]
            packed = packed_of(connection, sorted(set(rows)), self._side.file)
        return unpack([packed[row] for row in rows], self.manifest.model, self._side.codec)

    def _near(self, query: M3Output, view: View, *, k: int) -> Positions | None:
        """Where an engine's graph finds the best dense scores, ascending; None to look at every chunk."""
        return None

    def _colbert_scores(
        self, query: M3Output, view: View, connection: sqlite3.Connection, positions: Positions
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The scores at some ascending positions, and where both sides have tokens."""
        tokens = TokenRows(connection, self._side.file, self.manifest.model, self._side.codec)
        return tokens.scores(query, view.rows[positions].tolist())


def passing(view: View, connection: sqlite3.Connection, condition: Condition) -> Positions:
    """The positions of the chunks for which a condition holds, ascending."""
    if condition == EVERYTHING:
        return np.flatnonzero(view.alive)
    return np.flatnonzero(mask_in(condition, view, connection) & view.alive)


def _chunks(view: View, connection: sqlite3.Connection, positions: Iterable[int]) -> list[Chunk]:
    rows = [int(view.rows[position]) for position in positions]
    payloads = payloads_of(connection, sorted(set(rows)))
    return [chunk_from_payload(payloads[row]) for row in rows]
