"""A reranker by the name that a setting gives it."""

from __future__ import annotations

from m3rag.encoder.protocol import Encoder
from m3rag.reranking.protocol import Reranker
from m3rag.store.protocol import Store

NONE, COLBERT = "none", "colbert"


def reranker_named(name: str | None, encoder: Encoder, store: Store | None = None) -> Reranker | None:
    """The reranker that a name stands for.

    Args:
        name: `none` (or nothing), `colbert` for the encoder's own token vectors, or a cross-encoder: a hub id
            or a checkpoint folder.
        encoder: Of the index.
        store: Where the token vectors of its chunks are.

    Raises:
        ModelError: If a cross-encoder cannot be had.
        ConfigurationError: If it is `colbert` and the model has no token vectors.
    """
    if not name or name == NONE:
        return None
    if name == COLBERT:
        from m3rag.reranking.colbert import ColbertReranker  # noqa: PLC0415

        return ColbertReranker(encoder, store)
    # Imported here: torch takes seconds.
    from m3rag.reranking.cross_encoder import CrossEncoderReranker  # noqa: PLC0415

    return CrossEncoderReranker(name)
