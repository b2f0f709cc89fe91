"""A Chroma collection and its side file are made, opened, and made equal after interruptions or foreign changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from m3rag.errors import InputError, StoreError
from m3rag.store.chroma_items import ChromaItems
from m3rag.store.chroma_place import Place
from m3rag.store.manifest import check_model
from m3rag.store.payload import chunk_from_payload
from m3rag.store.side_legs import SideLegs
from m3rag.store.side_legs_read import payloads_of
from m3rag.store.sqlite_file import groups
from m3rag.store.view import Positions
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

log = logging.getLogger(__name__)

RESTORED = 64  # chunks whose texts are held at once


def make_index(place: Place, client: ClientAPI, model: ModelInfo, meta: Mapping[str, str], *, codec: str) -> None:
    """Write the side file of a collection that is still to be made, or that others made.

    Args:
        place: Where.
        client: Chroma.
        model: The model.
        meta: `hnsw` (JSON), and `adopted`: empty where the collection is ours.
        codec: How token vectors are kept.

    Raises:
        InputError: If there is an index, or a collection where none should be, or none where one should be.
    """
    if place.file.exists():
        raise InputError(f"there is already an index at {place.file}: open it, or give another folder or collection")
    found = ChromaItems.find(client, place.collection, where=place.name)
    if meta["adopted"] and found is None:
        raise InputError(f"there is no collection {place.collection!r} at {place.name} to adopt")
    if not meta["adopted"] and found is not None:
        raise InputError(
            f"there is already a collection {place.collection!r} at {place.name}: give another name, "
            "or ChromaStore.adopt it"
        )
    SideLegs.create(place.file, model, {**meta, "collection_id": found.id if found else ""}, codec=codec)


def open_index(
    place: Place, client: ClientAPI, model: ModelInfo | None, held: ExitStack
) -> tuple[SideLegs, ChromaItems]:
    """Open a side file and its collection, which is made if that was interrupted.

    Raises:
        IndexMismatchError: If another model, or a newer m3rag, made it.
        StoreError: If the file is damaged, or the collection gone.
    """
    side = SideLegs(place.file)
    held.callback(side.close)
    if model is not None:
        check_model(place.folder, side.manifest, model)
    if not side.meta["collection_id"]:
        items = ChromaItems.make(client, place.collection, hnsw=json.loads(side.meta["hnsw"]), where=place.name)
        side.remember("collection_id", items.id)
        return side, items
    found = ChromaItems.find(client, place.collection, where=place.name)
    if found is None or found.id != side.meta["collection_id"]:
        raise StoreError(
            f"the Chroma collection {place.collection!r} that {place.file} belongs to "
            f"{'is gone from' if found is None else 'was replaced by another of its name at'} {place.name}: "
            "restore it from a backup, or delete the file and ingest again"
        )
    return side, found


def settle(side: SideLegs, items: ChromaItems) -> None:
    """Make Chroma's item of every marked id what the side file says of it: the chunk's, or none.

    This one rule ends every interrupted change: before its commit the side file has the chunks as
    they were, and it has nothing to be done after.

    Raises:
        StoreError: If Chroma cannot be reached; the ids stay marked.
    """
    side.discard()
    if not side.marked:
        return
    with side.reading() as (view, connection):
        live = view.find(sorted(side.marked))
        items.delete([id_ for id_ in side.marked if id_ not in live])
        for few in groups(sorted(live.values()), RESTORED):
            positions = np.array(few, np.int64)
            rows = view.rows[positions].tolist()
            payloads = payloads_of(connection, rows)
            chunks = [chunk_from_payload(payloads[row]) for row in rows]
            items.put(chunks, view.dense_at(positions), replacing=items.held([chunk.id for chunk in chunks]))
    side.unmark()


def reconcile(side: SideLegs, items: ChromaItems, *, where: str) -> int:
    """Drop the chunks that somebody removed from Chroma.

    Returns:
        How many items of the collection are not ours.
    """
    held = items.ids()
    gone, kept = _compared(side, held)
    if len(gone):
        log.warning(
            "%d chunks of the index at %s are no longer in its Chroma collection, where something other than m3rag "
            "removed them: they were dropped here too, and their documents are without a version, so that the next "
            "ingest completes them",
            len(gone),
            where,
        )
        side.commit(removed=gone, keep_versions=False)
    return len(held) - kept


def _compared(side: SideLegs, held: Iterable[str]) -> tuple[Positions, int]:
    with side.reading() as (view, _):
        alive = np.flatnonzero(view.alive)
        there = set(view.find(held).values())
    return np.array([position for position in alive.tolist() if position not in there], np.int64), len(there)
