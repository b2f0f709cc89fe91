"""M3SparseEmbeddings as langchain-qdrant has sparse embeddings; importing this needs that package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

if TYPE_CHECKING:
    from m3rag.langchain.sparse_embeddings import M3SparseEmbeddings


class QdrantSparseEmbeddings(SparseEmbeddings):
    """Lexical weights as langchain-qdrant's SparseVector. Asynchronous calls run on threads.

    Args:
        embeddings: What gives the weights.
    """

    def __init__(self, embeddings: M3SparseEmbeddings) -> None:
        self.embeddings = embeddings

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """The lexical weights of passages."""
        return [_vector(weights) for weights in self.embeddings.embed_documents(texts)]

    def embed_query(self, text: str) -> SparseVector:
        """The lexical weights of a question."""
        return _vector(self.embeddings.embed_query(text))


def _vector(weights: dict[int, float]) -> SparseVector:
    return SparseVector(indices=list(weights), values=list(weights.values()))
