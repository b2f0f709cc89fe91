"""The half of ChromaStore that writes: Chroma and the side file change together, or neither does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from m3rag.errors import InputError, StoreError
from m3rag.output import M3Output
from m3rag.store.chroma_items import ChromaItems
from m3rag.store.chroma_sync import settle
from m3rag.store.filters import DOCUMENT_ID, AnyOf, Condition
from m3rag.store.parts import check_chunks, checked_parts, merged_settings, parse_deletion
from m3rag.store.payload import record_to_payload
from m3rag.store.protocol import DocumentRecord, Filter
from m3rag.store.side_legs import SideLegs
from m3rag.store.side_legs_read import payloads_of
from m3rag.store.side_legs_search import SideReader, passing
from m3rag.store.sqlite_file import groups
from m3rag.store.terms import is_unicode
from m3rag.store.view import Positions
from m3rag.types import Chunk

log = logging.getLogger(__name__)

STAGED = 64  # chunks of a transaction and of a request: bounds memory


class ChromaChanges(SideReader):
    """Changes of chunks, documents and settings.

    Args:
        side: The side store.
        items: The collection.
        where: Chroma's place, for messages.
    """

    def __init__(self, side: SideLegs, items: ChromaItems, *, where: str) -> None:
        super().__init__(side)
        self._items = items
        self._where = where
        self._writing = threading.RLock()  # held by a writer over a whole change

    @property
    def adopted(self) -> bool:
        """Whether the collection is others', and only read."""
        return bool(self._side.meta["adopted"])

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Raises:
            InputError: If the parts are not what the record promises, a chunk's id is taken, or the
                collection is adopted; the older version stays.
            StoreError: If Chroma or the side file cannot be written; the older version stays.
        """
        record_to_payload(document)  # refused before anything is written
        with self._change():
            for chunks, output in checked_parts(document, parts, model=self.manifest.model):
                self._refuse_taken(chunks)
                self._stage(chunks, output)
            self._finish(self._positions(AnyOf(DOCUMENT_ID, (document.id,))), put=document)

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Add single chunks, or replace those of the same id, outside a whole-document write.

        Raises:
            InputError: If chunks and representations differ in number, an id comes twice, the
                dimensions are not the model's, a number is not finite, metadata are not JSON, a text is
                not Unicode, or the collection is adopted; nothing has changed.
            StoreError: If Chroma or the side file cannot be written; nothing has changed.
        """
        check_chunks(chunks, output, model=self.manifest.model)
        with self._change():
            if chunks:
                self._stage(chunks, output)
                self._finish(self._positions_of(chunk.id for chunk in chunks))

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were.

        Raises:
            StoreError: If Chroma or the side file cannot be written; nothing has been removed.
        """
        with self._change():
            asked = [id_ for id_ in dict.fromkeys(document_ids) if is_unicode(id_)]
            stored = [id_ for id_ in asked if self.document(id_) is not None]
            if stored:
                self._finish(self._positions(AnyOf(DOCUMENT_ID, tuple(stored))), dropped=stored)
            return len(stored)

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """Remove single chunks; returns how many there were.

        Raises:
            StoreError: If Chroma or the side file cannot be written; nothing has been removed.
        """
        with self._change():
            return self._remove(self._positions_of(chunk_ids))

    def delete(self, filter: Filter) -> int:
        """Remove every chunk that passes a filter; returns how many there were.

        Raises:
            InputError: If the filter is empty, or makes no sense.
            StoreError: If Chroma or the side file cannot be written; nothing has been removed.
        """
        condition = parse_deletion(filter, of=self.manifest)
        with self._change():
            return self._remove(self._positions(condition))

    def update_settings(self, values: Mapping[str, Any]) -> None:
        """Remember some values with those that are there; None forgets a key. Durable, all or none.

        Raises:
            InputError: If a key is not a string, or a value not JSON.
        """
        with self._writing:
            self._side.remember("settings", merged_settings(self.settings, values))

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._writing:
            if self.adopted:
                raise InputError(
                    f"the collection at {self._where} was adopted and is only read: change it with the program "
                    "that fills it, then ChromaStore.adopt it again"
                )
            settle(self._side, self._items)
            try:
                yield
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        try:
            settle(self._side, self._items)
        except StoreError as error:
            log.warning("what an interrupted change left is mended by the next change, or opening: %s", error)

    def _stage(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        for rows in groups(range(len(chunks)), STAGED):
            few = [chunks[row] for row in rows]
            ids = [chunk.id for chunk in few]
            held = self._items.held([id_ for id_ in ids if is_unicode(id_)])
            with self._side.reading() as (view, _):
                foreign = held - set(view.find(held)) - self._side.marked
            if foreign:
                raise InputError(
                    f"chunk {min(foreign)!r}: the collection at {self._where} has an item of this id that m3rag did "
                    "not write: remove that item, or use another id"
                )
            self._side.stage(few, output[rows])
            self._items.put(few, output.dense[rows], replacing=held)

    def _finish(self, removed: Positions, *, put: DocumentRecord | None = None, dropped: Collection[str] = ()) -> None:
        """Remove from Chroma what goes and is not replaced under its id, then end the change."""
        staged = self._side.marked
        with self._side.reading() as (view, _):
            leaving = [id_ for id_ in view.ids(removed) if id_ not in staged]
        self._side.mark(leaving)
        self._items.delete(leaving)
        self._side.commit(removed=removed, put=put, dropped=dropped)

    def _remove(self, removed: Positions) -> int:
        if len(removed):
            self._finish(removed)
        return len(removed)

    def _positions(self, condition: Condition) -> Positions:
        with self._side.reading() as (view, connection):
            return passing(view, connection, condition)

    def _positions_of(self, chunk_ids: Iterable[str]) -> Positions:
        with self._side.reading() as (view, _):
            return np.array(sorted(view.find(chunk_ids).values()), np.int64)

    def _refuse_taken(self, chunks: Sequence[Chunk]) -> None:
        with self._side.reading() as (view, connection):
            found = sorted(view.find(chunk.id for chunk in chunks).values())
            payloads = payloads_of(connection, view.rows[np.array(found, np.int64)].tolist())
        for payload in payloads.values():
            if payload["document_id"] != chunks[0].document_id:
                raise InputError(f"chunk {payload['id']!r} is already stored with another document")
