"""StoreEmbedding: stands where LlamaIndex asks for an embedding model, and the store encodes by itself."""

from __future__ import annotations

from typing import NoReturn

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import Field

from m3rag.errors import ConfigurationError


class StoreEmbedding(BaseEmbedding):
    """An embedding model that embeds nothing, for `M3VectorStore`, which makes all three representations itself.

    `VectorStoreIndex` and `IngestionPipeline` insist on embedding nodes before a store sees them. With this one
    a text goes through the model once; with M3Embedding, or any other, twice.
    """

    model_name: str = Field(default="m3rag-store", description="No model: the store encodes.")
    embed_batch_size: int = Field(default=2048, description="Costs nothing, so all at once.", gt=0, le=2048)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "StoreEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return [0.0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return [0.0]

    def _get_query_embedding(self, query: str) -> NoReturn:
        raise ConfigurationError(
            "StoreEmbedding embeds no questions, since M3VectorStore does: with another store use M3Embedding"
        )

    async def _aget_query_embedding(self, query: str) -> NoReturn:
        self._get_query_embedding(query)
