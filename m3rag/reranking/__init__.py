"""Reranking: a second look at the best hits, question and passage together.

Names are loaded on first use, since torch takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.reranking.protocol import Reranker

if TYPE_CHECKING:
    from m3rag.reranking.colbert import ColbertReranker
    from m3rag.reranking.cross_encoder import CrossEncoderReranker

__all__ = ["ColbertReranker", "CrossEncoderReranker", "Reranker"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ColbertReranker": "m3rag.reranking.colbert",
        "CrossEncoderReranker": "m3rag.reranking.cross_encoder",
    },
)
