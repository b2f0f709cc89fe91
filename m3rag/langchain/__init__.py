"""m3rag in LangChain: `pip install "m3rag[langchain]"`.

Names load on first use, so that importing this costs nothing and needs no LangChain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.langchain.embeddings import M3Embeddings
    from m3rag.langchain.retriever import M3Retriever
    from m3rag.langchain.text_splitter import M3TextSplitter

__all__ = ["M3Embeddings", "M3Retriever", "M3TextSplitter"]

__getattr__ = lazy_names(
    __name__,
    {
        "M3Embeddings": "m3rag.langchain.embeddings",
        "M3Retriever": "m3rag.langchain.retriever",
        "M3TextSplitter": "m3rag.langchain.text_splitter",
    },
    needs="langchain_core",
    extra="langchain",
)
