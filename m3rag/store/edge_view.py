"""The first stage of a small index in memory: as exact as the engine, in a fraction of the time, for 4 KB a chunk.

The engine scans 10,000 dense vectors of 1,024 dimensions in 6 ms and holds Python's interpreter lock meanwhile;
numpy takes 1.6 ms from memory, and other threads run on. The engine stays the one place where anything is kept:
what is here was read from it, and is read again point by point as points change.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from scipy.sparse import csc_array, vstack

from m3rag.output import M3Output
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_points import EXACT_UP_TO, output_of
from m3rag.store.view import Segment, View
from m3rag.types import ModelInfo

FIRST_STAGE = ("dense", "lexical")

AT_ONCE = 1_000  # points: read in the time that a person does not notice
FROM_SEARCH = 2
"""Reading 10,000 chunks takes half a second, as long as a hundred searches by the engine: not for one question."""

_NOTHING = np.zeros(0, np.int64)
PAGE = 64  # points: 4 ms
PAUSE = 0.0005
"""Seconds after a page in which other threads get their turn: numpy gives the interpreter's lock up and takes it back
so often meanwhile that who waits for it would wait to the end."""


class EdgeView:
    """What the engine holds of two legs, where it has at most `EXACT_UP_TO` points.

    Args:
        engine: The shard.
        model: The model whose representations it holds.
    """

    def __init__(self, engine: EdgeEngine, model: ModelInfo) -> None:
        self._engine = engine
        self._model = model
        self._searches = 0
        self._row = itertools.count()
        self._names: dict[Any, str] = {}  # point -> chunk id
        self._view: View | None = None

    def current(self, *, search: bool = False) -> View | None:
        """All chunks as they are now; None where the engine is to be asked.

        The caller holds the engine's lock.

        Args:
            search: Whether this is a new search, some of which make a view worth its while.
        """
        self._searches += search
        with self._engine.shard() as shard:
            points = shard.info().points_count
        try:
            if points > EXACT_UP_TO or self._engine.changed is None:
                self._forget()
                if points <= (AT_ONCE if self._searches < FROM_SEARCH else EXACT_UP_TO):
                    self._read()
            elif self._engine.changed:
                self._follow(self._engine.changed)
        except BaseException:
            self._forget()
            raise
        return self._view

    def _forget(self) -> None:
        self._view = self._engine.changed = None
        self._names.clear()

    def _read(self) -> None:
        """Everything, from the start."""
        pages = self._engine.records(payload=["id", "kind"], vectors=self._legs, page=PAGE)
        self._view = View.of([]).changed(removed=_NOTHING, added=self._segment(pages))
        self._engine.changed = set()

    def _follow(self, changed: set[Any]) -> None:
        """Those points again that were written or removed."""
        assert self._view is not None
        before = self._view.find([self._names.pop(point) for point in changed if point in self._names])
        ids = list(changed)
        pages = (
            self._engine.retrieve(ids[a : a + PAGE], payload=["id", "kind"], vectors=self._legs)
            for a in range(0, len(ids), PAGE)
        )
        self._view = self._view.changed(removed=np.array(sorted(before.values()), np.int64), added=self._segment(pages))
        self._engine.changed = set()

    @property
    def _legs(self) -> list[str]:
        return [leg for leg in FIRST_STAGE if leg in self._model.legs]

    def _segment(self, pages: Iterable[Sequence[qdrant.Record]]) -> Segment:
        """The chunks among some points."""
        names: list[str] = []
        parts = [M3Output.empty(dense_dim=self._model.dense_dim, vocab_size=self._model.vocab_size, colbert_dim=0)]
        for page in pages:
            chunks = [(point, point.payload or {}) for point in page if (point.payload or {})["kind"] == "chunk"]
            self._names.update((point.id, payload["id"]) for point, payload in chunks)
            names += [payload["id"] for _, payload in chunks]
            vectors: list[Any] = [point.vector for point, _ in chunks]
            parts.append(output_of(vectors, self._model))
            time.sleep(PAUSE)
        rows = np.fromiter(itertools.islice(self._row, len(names)), np.int64, len(names))
        dense = np.concatenate([part.dense for part in parts])
        return Segment.of(rows, names, dense, csc_array(vstack([part.lexical for part in parts], format="csr").tocsc()))
