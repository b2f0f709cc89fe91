"""m3rag: retrieval-augmented generation on BGE-M3's three representations.

    from m3rag import KnowledgeBase

    kb = KnowledgeBase("my-index")
    kb.ingest("papers/")
    answer = kb.ask("Who proved it first?")

Names load on first use, so that importing m3rag costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag._version import __version__

if TYPE_CHECKING:
    from m3rag.collection import Collection
    from m3rag.encoder.encoder import M3Encoder
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.output import M3Output
    from m3rag.types import Answer, Chunk, Citation, Document, Hit

__all__ = [
    "Answer",
    "Chunk",
    "Citation",
    "Collection",
    "Document",
    "Hit",
    "KnowledgeBase",
    "M3Encoder",
    "M3Output",
    "__version__",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Collection": "m3rag.collection",
        "KnowledgeBase": "m3rag.knowledge_base",
        "M3Encoder": "m3rag.encoder.encoder",
        "M3Output": "m3rag.output",
        **dict.fromkeys(("Answer", "Chunk", "Citation", "Document", "Hit"), "m3rag.types"),
    },
)
