"""m3rag in LlamaIndex: `pip install "m3rag[llama-index]"`.

Names load on first use, so that importing this costs nothing and needs no LlamaIndex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.llama_index.chat_engine import M3ChatEngine, create_chat_engine
    from m3rag.llama_index.embedding import M3Embedding
    from m3rag.llama_index.llm import LlamaIndexLLM
    from m3rag.llama_index.node_parser import M3NodeParser
    from m3rag.llama_index.postprocessor import M3Rerank
    from m3rag.llama_index.query_engine import M3QueryEngine, create_query_engine
    from m3rag.llama_index.retriever import M3Retriever
    from m3rag.llama_index.sparse_embedding import M3SparseEmbedding
    from m3rag.llama_index.store_embedding import StoreEmbedding
    from m3rag.llama_index.vector_store import M3VectorStore

__all__ = [
    "LlamaIndexLLM",
    "M3ChatEngine",
    "M3Embedding",
    "M3NodeParser",
    "M3QueryEngine",
    "M3Rerank",
    "M3Retriever",
    "M3SparseEmbedding",
    "M3VectorStore",
    "StoreEmbedding",
    "create_chat_engine",
    "create_query_engine",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LlamaIndexLLM": "m3rag.llama_index.llm",
        "M3ChatEngine": "m3rag.llama_index.chat_engine",
        "M3Embedding": "m3rag.llama_index.embedding",
        "M3NodeParser": "m3rag.llama_index.node_parser",
        "M3QueryEngine": "m3rag.llama_index.query_engine",
        "M3Rerank": "m3rag.llama_index.postprocessor",
        "M3Retriever": "m3rag.llama_index.retriever",
        "M3SparseEmbedding": "m3rag.llama_index.sparse_embedding",
        "M3VectorStore": "m3rag.llama_index.vector_store",
        "StoreEmbedding": "m3rag.llama_index.store_embedding",
        "create_chat_engine": "m3rag.llama_index.chat_engine",
        "create_query_engine": "m3rag.llama_index.query_engine",
    },
    extras={__name__: ("llama_index", "llama-index")},
)
