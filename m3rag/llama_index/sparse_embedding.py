"""M3SparseEmbedding: the lexical leg of M3 for LlamaIndex, and for its Qdrant and Milvus stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding

from m3rag.legs import require_legs
from m3rag.llama_index.encoder_fields import EncoderFields

if TYPE_CHECKING:
    from m3rag.encoder.inputs import Role

SparseVector = dict[int, float]
"""Token id to weight > 0."""

BatchSparseEncoding = tuple[list[list[int]], list[list[float]]]
"""Of each text the token ids, and their weights: what `QdrantVectorStore` takes."""


class M3SparseEmbedding(EncoderFields, BaseSparseEmbedding):
    """Lexical weights of an M3 model.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        ```

    Instantiate:
        ```python
        from m3rag.encoder import CachedEncoder, M3Encoder, MemoryCache
        from m3rag.llama_index import M3Embedding, M3SparseEmbedding

        encoder = CachedEncoder(M3Encoder("BAAI/bge-m3"), MemoryCache())  # each text goes through the model once
        dense, sparse = M3Embedding(encoder=encoder), M3SparseEmbedding(encoder=encoder)
        ```

    Use:
        ```python
        weights = sparse.get_query_embedding("What do ducks do?")  # {token id: weight}
        store = QdrantVectorStore(
            "papers", client=client, enable_hybrid=True,
            sparse_doc_fn=sparse.sparse_doc_fn, sparse_query_fn=sparse.sparse_query_fn,
        )
        store = MilvusVectorStore(enable_sparse=True, sparse_embedding_function=sparse.for_milvus(), dim=1024)
        ```

    Two vectors are compared by their inner product. Asynchronous calls run on threads; loading and pickling are as
    for `M3Embedding`, and so are the fields.

    Raises:
        ValidationError: (a ValueError) If a field is unknown or of the wrong type.
        ModelError: If the model cannot be had.
        ConfigurationError: If an option is out of range for the model, or it gives no lexical weights.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "M3SparseEmbedding"

    def _get_query_embedding(self, query: str) -> SparseVector:
        return self._weigh([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> SparseVector:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> SparseVector:
        return self._weigh([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> SparseVector:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[SparseVector]:
        return self._weigh(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[SparseVector]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def sparse_doc_fn(self, texts: Sequence[str]) -> BatchSparseEncoding:
        """Passages, as LlamaIndex's `QdrantVectorStore(sparse_doc_fn=...)` asks for them."""
        return _columns(self._weigh(texts, "document"))

    def sparse_query_fn(self, texts: Sequence[str]) -> BatchSparseEncoding:
        """Questions, as LlamaIndex's `QdrantVectorStore(sparse_query_fn=...)` asks for them."""
        return _columns(self._weigh(texts, "query"))

    def for_milvus(self) -> Any:
        """The `BaseSparseEmbeddingFunction` that LlamaIndex's `MilvusVectorStore` asks for.

        In the query mode `sparse` that store leaves small weights out, which Milvus Lite refuses; `hybrid` it takes.

        Raises:
            ImportError: If `llama-index-vector-stores-milvus` is not installed.
        """
        try:
            base = import_module("llama_index.vector_stores.milvus.utils").BaseSparseEmbeddingFunction
        except ModuleNotFoundError as error:
            raise ImportError(
                "for_milvus needs LlamaIndex's Milvus store: pip install llama-index-vector-stores-milvus",
                name=error.name,
            ) from error

        # Made here, since the base class is there only where Milvus is.
        function = type("M3SparseEmbeddingFunction", (_MilvusFunction, base), {})
        return function(self)

    def _weigh(self, texts: Sequence[str], role: Role) -> list[SparseVector]:
        encoder = self._loaded()
        require_legs(encoder.info, ["lexical"], what="M3SparseEmbedding", remedy="use M3Embedding alone")
        encode = encoder.encode_queries if role == "query" else encoder.encode_documents
        return [{int(token): weight for token, weight in weights.items()} for weights in encode(texts).lexical_dicts()]


class _MilvusFunction:
    def __init__(self, embedding: M3SparseEmbedding) -> None:
        self._embedding = embedding

    def encode_queries(self, queries: list[str]) -> list[SparseVector]:
        return self._embedding._weigh(queries, "query")

    async def async_encode_queries(self, queries: list[str]) -> list[SparseVector]:
        return await asyncio.to_thread(self.encode_queries, queries)

    def encode_documents(self, documents: list[str]) -> list[SparseVector]:
        return self._embedding._weigh(documents, "document")

    async def async_encode_documents(self, documents: list[str]) -> list[SparseVector]:
        return await asyncio.to_thread(self.encode_documents, documents)


def _columns(vectors: Sequence[SparseVector]) -> BatchSparseEncoding:
    return [list(vector) for vector in vectors], [list(vector.values()) for vector in vectors]
