"""M3Embedding: the dense leg of M3 for LlamaIndex."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from m3rag.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from m3rag.encoder.inputs import Role
    from m3rag.encoder.shared import SharedEncoder
else:
    # pydantic resolves the annotation when the class is made, and torch takes seconds to import.
    SharedEncoder = Any

_OPTIONS = ("device", "dtype", "max_length", "batch_tokens", "cache_folder", "local_files_only")

_LOADING = threading.Lock()


class M3Embedding(BaseEmbedding):
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
    what cannot be loaded again by its name alone is not pickled.

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

    model_config = ConfigDict(extra="forbid")  # a misspelt field must not mean the default model

    model_name: str = Field(default="BAAI/bge-m3", description="`mini`, a hub id, or a checkpoint folder.")
    device: str | None = Field(default=None, description="As torch names it.")
    dtype: str | None = Field(default=None, description="`float32`, `float16` or `bfloat16`.")
    max_length: int | None = Field(default=None, description="Most tokens of a text.")
    batch_tokens: int | None = Field(default=None, description="Most tokens of one forward pass.")
    cache_folder: str | None = Field(default=None, description="Where models from the hub are kept.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")
    # The more texts at once, the less padding: the base class's 10 are for services with limits.
    embed_batch_size: int = Field(default=64, description="Texts handed to the model at once.", gt=0, le=2048)

    _encoder: SharedEncoder | None = PrivateAttr(default=None)

    def __init__(self, *, encoder: SharedEncoder | None = None, **fields: Any) -> None:
        """Load the model, or share one already loaded.

        Args:
            encoder: A loaded model, whose settings become the fields. It is no field itself.
            **fields: The attributes above, and those of the base class.
        """
        if encoder is not None:
            fields = {**fields, **_settings(encoder, fields)}
        super().__init__(**fields)
        self._encoder = encoder
        self._loaded()

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "M3Embedding"

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

    def _loaded(self) -> SharedEncoder:
        if self._encoder is not None:
            return self._encoder
        with _LOADING:
            if self._encoder is None:
                # Imported here: torch takes seconds.
                from m3rag.encoder.encoder import M3Encoder  # noqa: PLC0415

                options = {name: getattr(self, name) for name in _OPTIONS}
                self._encoder = M3Encoder(self.model_name, **options)
            return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        """The settings without the weights: the base class would pickle these to see whether it can."""
        if self._encoder is not None:
            from m3rag.encoder.shared import require_reloadable  # noqa: PLC0415

            require_reloadable(self._encoder, owner=type(self).__name__)
        light = self.model_copy()
        light._encoder = None
        return super(M3Embedding, light).__getstate__()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore the settings; not through `__init__` as the base class does, which would load the model."""
        dropped = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
            if name not in state["__dict__"]
        }
        BaseModel.__setstate__(self, {**state, "__dict__": {**dropped, **state["__dict__"]}})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the model."""
        return self.model_copy()


def _settings(encoder: SharedEncoder, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that would load a shared encoder again, as after unpickling."""
    from m3rag.encoder.shared import reload_options, require_encoder  # noqa: PLC0415

    require_encoder(encoder)
    contradicting = sorted(given.keys() & {"model_name", *_OPTIONS})
    if contradicting:
        raise InputError(f"encoder is already loaded: leave out {', '.join(contradicting)}")
    return {"model_name": encoder.info.name, **(reload_options(encoder) or {})}
