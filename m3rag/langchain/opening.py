"""The collection behind a LangChain vector store, from what its user gives."""

from __future__ import annotations

from pathlib import Path

from langchain_core.embeddings import Embeddings

from m3rag.collection import Collection
from m3rag.errors import InputError
from m3rag.langchain.foreign import EmbeddingsEncoder, encoder_of
from m3rag.retrieval import Mode
from m3rag.settings import Settings, load_settings
from m3rag.store.place import MEMORY, Place


def opened(
    embedding: Embeddings | None, index: str | Path | Place | None, mode: Mode | None, settings: Settings | None
) -> Collection:
    """A collection whose encoder is that of the embedding; `M3VectorStore` says what each argument means.

    Raises:
        InputError: If there is neither an embedding nor an index, or the embedding is none.
        IndexMismatchError: If another model made the index.
        ConfigurationError: If the mode needs a leg that the model does not give.
    """
    settings = settings or load_settings()
    if embedding is None:
        if index is None:
            raise InputError(
                "there is no embedding to encode with: M3VectorStore(M3Embeddings(model='BAAI/bge-m3')), "
                "or give index= of an index that is there, or collection="
            )
        return Collection(index, mode=mode, settings=settings)
    encoder = encoder_of(embedding)
    if mode is None and encoder.info.legs == ("dense",):
        mode = Mode.DENSE
    collection = Collection(MEMORY if index is None else index, encoder=encoder, mode=mode, settings=settings)
    collection.mode.check(encoder.info)
    try:
        manifest = collection.manifest
        if manifest is not None and isinstance(encoder, EmbeddingsEncoder):
            encoder.recognise(manifest.model)
        collection.encoder  # noqa: B018 - says if another model made the index
    except BaseException:
        collection.close()
        raise
    return collection
