"""Stores: chunks with their three representations, searched and scored.

Engines are loaded on first use, so that naming a type costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.store.protocol import FORMAT, DocumentRecord, Filter, Manifest, Scalar, Store

if TYPE_CHECKING:
    from m3rag.store.chroma import ChromaStore
    from m3rag.store.memory import MemoryStore
    from m3rag.store.qdrant import QdrantStore
    from m3rag.store.qdrant_edge import QdrantEdgeStore

__all__ = [
    "FORMAT",
    "ChromaStore",
    "DocumentRecord",
    "Filter",
    "Manifest",
    "MemoryStore",
    "QdrantEdgeStore",
    "QdrantStore",
    "Scalar",
    "Store",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ChromaStore": "m3rag.store.chroma",
        "MemoryStore": "m3rag.store.memory",
        "QdrantEdgeStore": "m3rag.store.qdrant_edge",
        "QdrantStore": "m3rag.store.qdrant",
    },
    extras={"m3rag.store.qdrant": ("qdrant_client", "qdrant")},
)
