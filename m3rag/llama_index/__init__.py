"""m3rag in LlamaIndex: `pip install "m3rag[llama-index]"`.

Names load on first use, so that importing this costs nothing and needs no LlamaIndex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.llama_index.embedding import M3Embedding
    from m3rag.llama_index.node_parser import M3NodeParser
    from m3rag.llama_index.retriever import M3Retriever

__all__ = ["M3Embedding", "M3NodeParser", "M3Retriever"]

__getattr__ = lazy_names(
    __name__,
    {
        "M3Embedding": "m3rag.llama_index.embedding",
        "M3NodeParser": "m3rag.llama_index.node_parser",
        "M3Retriever": "m3rag.llama_index.retriever",
    },
    needs="llama_index",
    extra="llama-index",
)
