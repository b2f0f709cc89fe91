"""ChromaStore: chunks in a Chroma collection that others can read, with the other two legs beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.errors import IndexMissingError, InputError
from m3rag.output import M3Output
from m3rag.store.chroma_adopt import take_over
from m3rag.store.chroma_changes import ChromaChanges
from m3rag.store.chroma_items import ChromaItems, check_hnsw
from m3rag.store.chroma_place import Place, Where
from m3rag.store.chroma_sync import make_index, open_index, reconcile, settle
from m3rag.store.codec import DEFAULT_CODEC, codec_named
from m3rag.store.side_legs import SideLegs
from m3rag.store.view import Positions, View
from m3rag.types import ModelInfo

EXACT_UP_TO = 50_000  # chunks: below, reading all vectors takes no longer than a thousand hits of the graph
OVER_FETCH = 2  # nearest items asked of Chroma's graph for each candidate wanted
LEAST_FETCHED = 200  # fewer take no less time, and lose recall


class ChromaStore(ChromaChanges):
    """Chunks in a Chroma collection: dense vectors, texts and flat metadata there, everything beside it.

    Other users of Chroma read the collection as any other: documents are the chunks' texts,
    metadata the user's flat values and ours under `m3rag_`. The side file holds the lexical and
    ColBERT legs, which Chroma's local mode has no place for, and is the truth about the rest, so
    that filters and scores are exact.

    One process at a time may write a folder, and one store a collection. A change is made so that
    a kill at any moment is repaired by one rule: the ids it touches are marked in the side file,
    the new chunks staged there, Chroma changed, and one commit puts the staged chunks in the place
    of the old and takes the marks away. Opening, as the next change, makes Chroma's items of all
    ids still marked what the side file says.

    Items that others add to the collection are ignored (`foreign` counts them), chunks whose items
    others delete are dropped at the next open, with a warning in the log. Texts that others change
    there are not noticed: `adopt` is for a collection that others fill.

    Dense vectors and lexical weights are held in memory, about 5 KB a chunk at 1,024 dimensions.
    Dense candidates are exact up to 50,000 chunks and under any filter; beyond, Chroma's graph
    finds them, and their scores are still exact. Its recall of the best 100 and the best 1,000
    among 5,000 random vectors of 384 dimensions is .99 or more.

    Examples:
        >>> store = ChromaStore.open_or_create("chroma", encoder.info)  # doctest: +SKIP
        >>> store = ChromaStore.open("http://localhost:8000", side="docs.side")  # doctest: +SKIP
    """

    def __init__(self, place: Place, side: SideLegs, items: ChromaItems, held: ExitStack) -> None:
        """Not for callers: use `create`, `open`, `open_or_create` or `adopt`."""
        super().__init__(side, items, where=place.name)
        self._place = place
        self._held = held  # all that `close` releases
        self._foreign = 0
        if not self.adopted:
            settle(side, items)
            self._foreign = reconcile(side, items, where=place.name)

    @classmethod
    def create(
        cls,
        where: Where,
        model: ModelInfo,
        *,
        collection: str = "m3rag",
        side: str | os.PathLike[str] | None = None,
        hnsw: Mapping[str, int] | None = None,
        codec: str = DEFAULT_CODEC,
    ) -> ChromaStore:
        """Make an empty collection for a model's representations, with its side file.

        Args:
            where: A folder for Chroma's persistent client, a server's `http://HOST:PORT`, or a client.
            model: The model.
            collection: The collection's name.
            side: The folder of the side file; by default `where` if that is a folder, else needed.
            hnsw: `ef_search`, `ef_construction` and `max_neighbors` of Chroma's graph; by default
                400, 200 and 32.
            codec: How token vectors are kept: `float16`, `int8` (1 byte a dimension), `int4` or `binary`.

        Raises:
            InputError: If there is an index or a collection of the name, or an argument is wrong.
            ConfigurationError: If there is no such codec.
            IndexLockedError: If another process has it open.
            StoreError: If Chroma cannot be reached.
        """
        check_hnsw(hnsw or {})
        place = Place(where, side=side, collection=collection)
        make = {"adopted": "", "hnsw": json.dumps(dict(hnsw or {}))}
        return cls._with_lock(place, model, make=make, codec=codec_named(codec).name)

    @classmethod
    def open(
        cls,
        where: Where,
        model: ModelInfo | None = None,
        *,
        collection: str = "m3rag",
        side: str | os.PathLike[str] | None = None,
    ) -> ChromaStore:
        """Open a collection with its side file, repairing what a killed process left behind.

        Args:
            where: As for `create`.
            model: The model that will be used with it; None to open it whoever made it.
            collection: The collection's name.
            side: As for `create`.

        Raises:
            IndexMissingError: If there is no side file.
            IndexMismatchError: If it was made by another model, or by a newer m3rag.
            IndexLockedError: If another process has it open.
            StoreError: If the file is damaged, the collection is gone, or Chroma cannot be reached.
        """
        place = Place(where, side=side, collection=collection)
        if not place.file.exists():
            raise IndexMissingError(
                f"there is no index at {place.file}: make one with ChromaStore.create, "
                "or with ChromaStore.adopt for a collection that others filled"
            )
        return cls._with_lock(place, model)

    @classmethod
    def open_or_create(
        cls,
        where: Where,
        model: ModelInfo,
        *,
        collection: str = "m3rag",
        side: str | os.PathLike[str] | None = None,
        hnsw: Mapping[str, int] | None = None,
        codec: str = DEFAULT_CODEC,
    ) -> ChromaStore:
        """Open what is there, making it first if there is nothing. Arguments and errors as of both."""
        if cls.exists(where, collection=collection, side=side):
            return cls.open(where, model, collection=collection, side=side)
        return cls.create(where, model, collection=collection, side=side, hnsw=hnsw, codec=codec)

    @staticmethod
    def exists(where: Where, *, collection: str = "m3rag", side: str | os.PathLike[str] | None = None) -> bool:
        """Whether there is a side file, perhaps a damaged one; Chroma is not asked."""
        return Place(where, side=side, collection=collection).file.exists()

    @classmethod
    def adopt(
        cls,
        where: Where,
        collection: str,
        *,
        encoder: Encoder,
        side: str | os.PathLike[str] | None = None,
        document_key: str | None = None,
    ) -> ChromaStore:
        """Make a collection that others fill searchable with all three legs, or follow its changes.

        Every item with a document becomes a chunk, encoded into the side file: texts, metadata and
        ids are the collection's. Its vectors are another model's and are never looked at, so dense
        candidates come from the side file at any size. Nothing in the collection is changed, and
        the store takes no chunks of its own. Called again, it encodes only items that are new or
        changed since and drops those that are gone; a killed run is continued.

        Args:
            where: As for `create`.
            collection: The collection's name.
            encoder: Encodes the documents.
            side: As for `create`.
            document_key: The metadata key that names an item's document (`source` in LangChain);
                by default, and for an item without it, each item is a document.

        Raises:
            InputError: If there is no such collection, or it is one of ours, or `document_key` is
                not that of the first call.
            IndexMismatchError: If it was adopted with another model.
            IndexLockedError: If another process has it open.
            StoreError: If Chroma cannot be reached.
        """
        place = Place(where, side=side, collection=collection)
        adopted = json.dumps({"document_key": document_key})
        make = None if place.file.exists() else {"adopted": adopted, "hnsw": "{}"}
        store = cls._with_lock(place, encoder.info, make=make)
        try:
            if store._side.meta["adopted"] != adopted:
                raise InputError(
                    f"the collection {collection!r} at {place.name} "
                    + (f"was adopted with {store._side.meta['adopted']}" if store.adopted else "was made by m3rag")
                    + ": open it with ChromaStore.open, or give the same document_key"
                )
            with store._writing:
                take_over(store._side, store._items, encoder, document_key=document_key, where=place.name)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _with_lock(
        cls,
        place: Place,
        model: ModelInfo | None,
        *,
        make: Mapping[str, str] | None = None,
        codec: str = DEFAULT_CODEC,
    ) -> ChromaStore:
        held = place.lock()
        try:
            client = place.connect(held)
            if make is not None and model is not None:
                make_index(place, client, model, make, codec=codec)
            side, items = open_index(place, client, model, held)
            return cls(place, side, items, held)
        except BaseException:
            held.close()
            raise

    @property
    def path(self) -> Path:
        """The folder of the side file."""
        return self._place.folder

    @property
    def revision(self) -> str | None:
        """Another text after every change of the chunks; None before the first."""
        self._side.file.require_open()
        return self._side.meta.get("revision")

    @property
    def foreign(self) -> int:
        """How many items of the collection were not ours when it was opened; they are left alone."""
        return self._foreign

    def close(self) -> None:
        """Release the collection, the file and the locks. Closing twice is not an error."""
        with self._writing:
            self._held.close()

    def __enter__(self) -> ChromaStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _near(self, query: M3Output, view: View, *, k: int) -> Positions | None:
        if self.adopted or len(view) <= EXACT_UP_TO:
            return None
        wanted = min(max(OVER_FETCH * k, LEAST_FETCHED), len(view)) + self._foreign
        # A chunk whose item is being replaced at this moment may be missing there.
        found = view.find([*self._items.nearest(query.dense[0], wanted), *sorted(self._side.marked)])
        # The graph may lead to fewer than asked for; then every chunk is looked at.
        return np.array(sorted(found.values()), np.int64) if len(found) >= min(k, len(view)) else None
