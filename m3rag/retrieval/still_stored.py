"""Hits that are still stored: between a search and what is made of its hits, others may remove documents."""

from __future__ import annotations

from collections.abc import Sequence

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
