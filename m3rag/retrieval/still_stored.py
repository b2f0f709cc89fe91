"""Hits that are still stored: between a search and what is made of its hits, others may remove documents."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.sparse import csr_array

from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.protocol import Store
from m3rag.types import Hit

TRIES = 5
"""How often chunks may be removed and written again while they are read."""


def still_stored(store: Store, hits: Sequence[Hit]) -> tuple[list[Hit], M3Output]:
    """The hits whose chunks were not removed since they were found, in their order, and their representations."""
    ids, output = representations_left(store, [hit.chunk.id for hit in hits])
    left = set(ids)
    return [hit for hit in hits if hit.chunk.id in left], output


def representations_left(store: Store, chunk_ids: Sequence[str]) -> tuple[list[str], M3Output]:
    """The ids of those chunks that are stored, in their order, and their representations."""
    left = list(chunk_ids)
    tries = 0
    while True:
        try:
            return left, store.representations(left)
        except InputError:
            stored = {chunk.id for chunk in store.get(left)}
            tries += stored.issuperset(left)
            if tries == TRIES:
                raise
            left = [id_ for id_ in left if id_ in stored]


def lexical_weights(encoder: Encoder, store: Store, hits: Sequence[Hit]) -> list[csr_array]:
    """Of each hit `(1, vocab)`: as stored, and for a chunk removed since as its text alone gives."""
    left, stored = still_stored(store, hits)
    weights = {hit.chunk.id: row.lexical for hit, row in zip(left, stored, strict=True)}
    gone = [hit.chunk for hit in hits if hit.chunk.id not in weights]
    if gone:
        encoded = encoder.encode_documents([chunk.encoded_text for chunk in gone])
        weights |= {chunk.id: row.lexical for chunk, row in zip(gone, encoded, strict=True)}
    return [weights[hit.chunk.id] for hit in hits]
