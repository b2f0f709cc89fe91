"""M3SparseEmbeddings as langchain-milvus has sparse embeddings; importing this needs that package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_milvus.utils.sparse import BaseSparseEmbedding  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from m3rag.langchain.sparse_embeddings import M3SparseEmbeddings


class MilvusSparseEmbeddings(BaseSparseEmbedding):  # type: ignore[misc, unused-ignore]
    """Lexical weights as langchain-milvus takes them: a dict from token id to weight.

    Args:
        embeddings: What gives the weights.
    """

    def __init__(self, embeddings: M3SparseEmbeddings) -> None:
        self.embeddings = embeddings

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """The lexical weights of passages."""
        return self.embeddings.embed_documents(texts)

    def embed_query(self, query: str) -> dict[int, float]:
        """The lexical weights of a question."""
        return self.embeddings.embed_query(query)
