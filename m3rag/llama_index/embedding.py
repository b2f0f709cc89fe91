"""M3Embedding: the dense leg of M3 for LlamaIndex."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llama_index.core.base.embeddings.base import BaseEmbedding

from m3rag.llama_index.encoder_fields import EncoderFields

if TYPE_CHECKING:
    from typing import Self

    from m3rag.encoder.inputs import Role


class M3Embedding(EncoderFields, BaseEmbedding):
    """Dense vectors of an M3 model.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        ```

    Instantiate:
        ```python
        from llama_index.core import Settings
        from m3rag.llama_index import M3Embedding

        Settings.embed_model = M3Embedding(model_name="BAAI/bge-m3")
        Settings.embed_model = M3Embedding(model_name="mini")  # embedded in m3rag, no download
        Settings.embed_model = M3Embedding(encoder=knowledge_base.encoder)  # share a model
        ```

    Use:
        ```python
        vector = embedding.get_query_embedding("What do ducks do?")
        vectors = embedding.get_text_embedding_batch(["Ducks swim.", "Les canards nagent."])
        vectors = await embedding.aget_text_embedding_batch(["Ducks swim."])
        ```

    The model is loaded when the object is made. Vectors are unit length lists of Python floats.
    Asynchronous calls run on threads. A pickle holds the settings, not the weights, which load
    again on first use. A `CachedEncoder` or an encoder of other models may be shared too;
    what cannot be loaded again by its name alone is not pickled. LlamaIndex's `embeddings_cache`
    holds passages alone; a `CachedEncoder` keeps questions as well.

    Attributes:
        model_name: `mini`, a hub id, or a checkpoint folder.
        device: As torch names it; None for a CUDA device if there is one, else the CPU.
        dtype: `float32`, `float16` or `bfloat16`; None for what suits the device.
        max_length: Most tokens of a text; longer ones are cut. None for the model's own.
        batch_tokens: Most tokens of one forward pass; by default what suits the device.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.
        embed_batch_size: Texts handed to the model at once, which batches them by length itself.

    Raises:
        ValidationError: (a ValueError) If a field is unknown or of the wrong type.
        ModelError: If the model cannot be had.
        ConfigurationError: If an option is out of range for the model.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "M3Embedding"

    def get_query_embedding(self, query: str) -> list[float]:
        """The vector of a question."""
        found: list[float] = super(M3Embedding, self._uncached()).get_query_embedding(query)
        return found

    async def aget_query_embedding(self, query: str) -> list[float]:
        """As `get_query_embedding`, on a thread."""
        found: list[float] = await super(M3Embedding, self._uncached()).aget_query_embedding(query)
        return found

    def _uncached(self) -> Self:
        # The base class keeps vectors by their text alone, and would give a passage's to the question of that text.
        if self.embeddings_cache is None:
            return self
        self._loaded()  # or each copy would
        return self.model_copy(update={"embeddings_cache": None})

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        vectors: list[list[float]] = self._loaded().encode_dense(texts, role=role).tolist()
        return vectors
