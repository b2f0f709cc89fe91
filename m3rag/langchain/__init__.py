"""m3rag in LangChain: `pip install "m3rag[langchain]"`.

Names load on first use, so that importing this costs nothing and needs no LangChain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.langchain.chain import ANSWER_TAG, CONDENSE_TAG, create_rag_chain
    from m3rag.langchain.document_index import M3DocumentIndex
    from m3rag.langchain.embeddings import M3Embeddings
    from m3rag.langchain.reranker import M3CrossEncoder, M3Reranker
    from m3rag.langchain.retriever import M3Retriever
    from m3rag.langchain.sparse_embeddings import M3SparseEmbeddings
    from m3rag.langchain.text_splitter import M3TextSplitter
    from m3rag.langchain.vector_store import M3VectorStore

__all__ = [
    "ANSWER_TAG",
    "CONDENSE_TAG",
    "M3CrossEncoder",
    "M3DocumentIndex",
    "M3Embeddings",
    "M3Reranker",
    "M3Retriever",
    "M3SparseEmbeddings",
    "M3TextSplitter",
    "M3VectorStore",
    "create_rag_chain",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ANSWER_TAG": "m3rag.langchain.chain",
        "CONDENSE_TAG": "m3rag.langchain.chain",
        "M3CrossEncoder": "m3rag.langchain.reranker",
        "M3DocumentIndex": "m3rag.langchain.document_index",
        "M3Embeddings": "m3rag.langchain.embeddings",
        "M3Reranker": "m3rag.langchain.reranker",
        "M3Retriever": "m3rag.langchain.retriever",
        "M3SparseEmbeddings": "m3rag.langchain.sparse_embeddings",
        "M3TextSplitter": "m3rag.langchain.text_splitter",
        "M3VectorStore": "m3rag.langchain.vector_store",
        "create_rag_chain": "m3rag.langchain.chain",
    },
    extras={__name__: ("langchain_core", "langchain")},
)
