"""Adopting a Chroma collection that others fill: its items are encoded into our side file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.store.chroma_items import ChromaItems
from m3rag.store.parts import check_numbers
from m3rag.store.payload import chunk_from_payload, chunk_to_payload
from m3rag.store.side_legs import SideLegs
from m3rag.store.side_legs_read import payloads_of
from m3rag.types import Chunk

log = logging.getLogger(__name__)

PAGE = 256  # items that are encoded and committed together


def take_over(side: SideLegs, items: ChromaItems, encoder: Encoder, *, document_key: str | None, where: str) -> None:
    """Make the side file hold what the collection does: encode what is new or changed, drop what is gone.

    Pages are committed one by one, so that a killed run is continued by the next.

    Raises:
        InputError: If the encoder gives numbers that are not finite.
        StoreError: If Chroma cannot be read.
    """
    side.discard()
    seen: set[str] = set()
    empty = 0
    for ids, texts, metadata in items.pages(PAGE):
        rows = zip(ids, texts, metadata, strict=True)
        chunks = [_chunk(id_, text, found or {}, document_key) for id_, text, found in rows if text]
        empty += len(ids) - len(chunks)
        seen.update(chunk.id for chunk in chunks)
        fresh = _changed(side, chunks)
        if fresh:
            output = encoder.encode_documents([chunk.text for chunk in fresh])
            check_numbers(fresh, output)
            side.stage(fresh, output)
            with side.reading() as (view, _):
                replaced = view.find(chunk.id for chunk in fresh)
            side.commit(removed=np.array(sorted(replaced.values()), np.int64))
    with side.reading() as (view, _):
        alive = np.flatnonzero(view.alive)
        gone = np.array([at for at, id_ in zip(alive, view.ids(alive), strict=True) if id_ not in seen], np.int64)
    if len(gone):
        side.commit(removed=gone)
    if empty:
        log.warning("%d items of the Chroma collection at %s have no document and cannot be found", empty, where)


def _chunk(id_: str, text: str, metadata: Mapping[str, Any], document_key: str | None) -> Chunk:
    named = metadata.get(document_key) if document_key is not None else None
    # Chroma has values that are no JSON, such as sparse vectors.
    kept = {key: value for key, value in metadata.items() if isinstance(value, str | int | float | bool | list)}
    document_id = id_ if named is None else str(named)
    return Chunk(id=id_, document_id=document_id, text=text, start=0, end=len(text), metadata=kept)


def _changed(side: SideLegs, chunks: list[Chunk]) -> list[Chunk]:
    with side.reading() as (view, connection):
        found = view.find(chunk.id for chunk in chunks)
        rows = {id_: int(view.rows[position]) for id_, position in found.items()}
        payloads = payloads_of(connection, list(rows.values()))
    return [
        chunk
        for chunk in chunks
        if chunk.id not in rows
        or chunk_from_payload(payloads[rows[chunk.id]]) != chunk_from_payload(chunk_to_payload(chunk))
    ]
