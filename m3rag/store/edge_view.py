"""The first stage of an index in memory: exact, in a fraction of the engine's time, filtered or not, for 6 KB a chunk.

The engine scans 10,000 dense vectors of 1,024 dimensions in 6 ms, or walks a graph of more, and holds Python's
interpreter lock meanwhile; from memory they take 1 ms, and other threads run on. The engine stays the one place where
anything is kept: what is here was read from it, and is read again point by point as points change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from scipy.sparse import csc_array, vstack

from m3rag.output import M3Output
from m3rag.store import filter_index
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_points import output_of
from m3rag.store.filter_index import FilterIndexBuilder
from m3rag.store.view import Segment, View
from m3rag.types import ModelInfo

Pages = Iterator[list[qdrant.Record]]

FIRST_STAGE = ("dense", "lexical")
FIELDS = ["id", "kind", "row", *filter_index.FIELDS]

IN_MEMORY = 1 << 30
"""Bytes that a view may take."""

BYTES_A_DIMENSION = 5  # float32, and once more in a byte
OTHER_BYTES = 1_600  # of a typical chunk: its lexical weights, its id, its row, what filters match
FILTER_BYTES = IN_MEMORY // 4
"""Bytes that what filters match may take of it: of chunks with a thousand metadata values the engine answers."""

AT_ONCE = 1_000  # points: read in the time that a person does not notice; more are read while the engine answers
MERGED_AT_ONCE = 20_000  # chunks, likewise: half a second
FROM_SEARCH = 2
"""Reading 10,000 chunks takes half a second, as long as a hundred searches by the engine: not for one question."""

PAGE = 64  # points: 4 ms
PAUSE = 0.0005
"""Seconds after a page in which other threads get their turn: numpy gives the interpreter's lock up and takes it back
so often meanwhile that who waits for it would wait to the end."""


class _Stopped(Exception):
    """Nobody waits for what is being read any more."""


class _TooLarge(Exception):
    """What filters match takes too much memory."""


@dataclass
class _Held:
    """What has been read: the chunks, and which point each of them is."""

    view: View = field(default_factory=lambda: View.of([]))
    names: dict[Any, str] = field(default_factory=dict)


class EdgeView:
    """What the engine holds of two legs, where that fits into `IN_MEMORY`.

    Args:
        engine: The shard.
        model: The model whose representations it holds.
    """

    def __init__(self, engine: EdgeEngine, model: ModelInfo) -> None:
        self._engine = engine
        self._model = model
        self._up_to = IN_MEMORY // (BYTES_A_DIMENSION * model.dense_dim + OTHER_BYTES)  # points
        self._searches = 0
        self._held: _Held | None = None
        self._reader: threading.Thread | None = None  # what reads while the engine answers
        self._closed = False

    def current(self, *, search: bool = False) -> View | None:
        """All chunks as they are now; None where the engine is to be asked.

        The caller holds the engine's lock.

        Args:
            search: Whether this is a new search, some of which make a view worth its while.
        """
        self._searches += search
        with self._engine.shard() as shard:
            if self._held is not None and self._reader is None and self._engine.changed == set():
                return self._held.view
            points = shard.info().points_count
        if points > self._up_to or self._engine.changed is None:
            self._forget()
        if points <= self._up_to and self._reader is None:
            unread = points if self._held is None else len(self._engine.changed or ())
            merged = 0 if self._held is None else self._held.view.merged_by(unread)
            if unread > AT_ONCE or merged > MERGED_AT_ONCE:
                if self._held is not None or self._searches >= FROM_SEARCH:
                    self._begin(unread)
            elif unread or self._held is None:
                try:
                    self._catch_up(unread)
                except _TooLarge:
                    self._up_to = -1
        return None if self._held is None else self._held.view

    def wait(self) -> None:
        """Return once nothing is being read; the caller does not hold the engine's lock."""
        with self._engine.lock:
            reader = self._reader
        if reader is not None:
            reader.join()

    def close(self) -> None:
        """Read no more. What still does ends by itself: waiting for it could be for ever, in a signal's handler."""
        self._closed = True

    def _forget(self) -> None:
        self._held = self._reader = self._engine.changed = None

    def _catch_up(self, unread: int) -> None:
        """Read what is not held yet."""
        held, self._held = self._held, None
        try:
            self._held = self._read(held, self._engine.changed, unread, _paced)
            self._engine.changed = set()
        except BaseException:
            self._forget()
            raise

    def _begin(self, unread: int) -> None:
        """The same in a thread of its own."""
        arguments = self._held, self._engine.changed, unread
        self._held, self._engine.changed = None, set()  # which gathers from here on what changes meanwhile
        try:
            self._reader = threading.Thread(target=self._read_beside, args=arguments, name="m3rag-view")
            self._reader.start()
        except RuntimeError:  # no more threads
            self._forget()
            self._up_to = -1
        except BaseException:
            self._forget()
            raise

    def _read_beside(self, held: _Held | None, changed: set[Any] | None, unread: int) -> None:
        try:
            held = self._read(held, changed, unread, self._while_wanted)
            for segment in held.view.segments:
                _ = segment.codes  # now, and not by the first search
        except BaseException as error:  # noqa: BLE001 - nobody above would catch it
            held = None
            if not isinstance(error, _Stopped):
                self._up_to = -1  # the engine answers alone, and tells what is wrong with it
        with self._engine.lock:
            if self._reader is threading.current_thread():
                self._held, self._reader = held, None

    def _while_wanted(self, pages: Pages) -> Pages:
        """The pages with as long a pause after each as it took, as long as somebody waits for them."""
        start = time.monotonic()
        for page in pages:
            yield page
            if not threading.main_thread().is_alive():  # the process ends, or is left to its other threads
                self._up_to = -1
                raise _Stopped
            if self._closed or self._reader is not threading.current_thread():
                raise _Stopped
            time.sleep(time.monotonic() - start)
            start = time.monotonic()

    def _read(self, held: _Held | None, changed: set[Any] | None, unread: int, pace: Callable[[Pages], Pages]) -> _Held:
        """What is held, with what has changed or, where nothing is held, with everything."""
        if held is None or changed is None:
            held, changed = _Held(), set()
            pages: Pages = self._engine.records(payload=FIELDS, vectors=self._legs, page=PAGE)
        else:
            pages = self._named(list(changed))
        before = held.view.find([held.names.pop(point) for point in changed if point in held.names])
        added = self._segment(pace(pages), held, unread)
        # What was foreseen is done, or it would be foreseen again with each change, and read beside each search.
        compact = held.view.half_gone(unread)
        held.view = held.view.changed(removed=np.array(sorted(before.values()), np.int64), added=added, compact=compact)
        return held

    def _named(self, points: Sequence[Any]) -> Pages:
        for a in range(0, len(points), PAGE):
            yield self._engine.retrieve(points[a : a + PAGE], payload=FIELDS, vectors=self._legs)

    @property
    def _legs(self) -> list[str]:
        return [leg for leg in FIRST_STAGE if leg in self._model.legs]

    def _segment(self, pages: Pages, held: _Held, expected: int) -> Segment:
        """The chunks among some points, whose names are noted, beside what is held."""
        already = sum(segment.filters.nbytes for segment in held.view.segments if segment.filters is not None)
        ids, rows, dim = list[str](), list[int](), self._model.dense_dim
        filters = FilterIndexBuilder()
        lexical = [M3Output.empty(dense_dim=dim, vocab_size=self._model.vocab_size, colbert_dim=0).lexical]
        dense = np.empty((expected, dim), np.float32)  # one array: joined from pages, all would be there twice
        for page in pages:
            chunks = [(point, point.payload or {}) for point in page if (point.payload or {}).get("kind") == "chunk"]
            vectors: list[Any] = [point.vector for point, _ in chunks]
            output = output_of(vectors, self._model)
            end = len(ids) + len(chunks)
            if end > len(dense):  # some were added since they were counted
                dense = np.concatenate([dense, np.empty((end, dim), np.float32)])
            dense[len(ids) : end] = output.dense
            lexical.append(output.lexical)
            held.names.update((point.id, payload["id"]) for point, payload in chunks)
            ids += [payload["id"] for _, payload in chunks]
            rows += [payload["row"] for _, payload in chunks]
            for _, payload in chunks:
                filters.add(payload)
            if already + filters.nbytes > FILTER_BYTES:
                raise _TooLarge
        weights = csc_array(vstack(lexical, format="csr").tocsc())
        return Segment.of(np.array(rows, np.int64), ids, dense[: len(ids)], weights, filters.index())


def _paced(pages: Pages) -> Pages:
    """The pages, with a moment after each for other threads."""
    for page in pages:
        yield page
        time.sleep(PAUSE)
