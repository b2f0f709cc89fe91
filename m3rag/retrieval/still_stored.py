"""Hits that are still stored: between a search and what is made of its hits, others may remove documents."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.sparse import csr_array

from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.protocol import Store
from m3rag.types import Hit


def still_stored(store: Store, hits: Sequence[Hit]) -> tuple[list[Hit], M3Output]:
    """The hits whose chunks were not removed since they were found, in their order, and their representations."""
    left = list(hits)
    while True:
        ids = [hit.chunk.id for hit in left]
        try:
            return left, store.representations(ids)
        except InputError:
            stored = {chunk.id for chunk in store.get(ids)}
            if stored.issuperset(ids):
                raise
            left = [hit for hit in left if hit.chunk.id in stored]


def lexical_weights(encoder: Encoder, store: Store, hits: Sequence[Hit]) -> list[csr_array]:
    """Of each hit `(1, vocab)`: as stored, and for a chunk removed since as its text alone gives."""
    left, stored = still_stored(store, hits)
    weights = {hit.chunk.id: row.lexical for hit, row in zip(left, stored, strict=True)}
    gone = [hit.chunk for hit in hits if hit.chunk.id not in weights]
    if gone:
        encoded = encoder.encode_documents([chunk.encoded_text for chunk in gone])
        weights |= {chunk.id: row.lexical for chunk, row in zip(gone, encoded, strict=True)}
    return [weights[hit.chunk.id] for hit in hits]
