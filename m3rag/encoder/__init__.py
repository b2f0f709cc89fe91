"""The encoder: a checkpoint's one forward pass, three representations.

Names are loaded on first use, since torch takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.encoder.protocol import Encoder
from m3rag.output import M3Output

if TYPE_CHECKING:
    from m3rag.encoder.cache import CacheStats, EmbeddingCache, MemoryCache
    from m3rag.encoder.cached import CachedEncoder
    from m3rag.encoder.dense_only import DenseOnlyEncoder
    from m3rag.encoder.disk_cache import DiskCache
    from m3rag.encoder.encoder import M3Encoder
    from m3rag.encoder.explain import TokenAlignment, TokenWeight, colbert_alignment, token_weights
    from m3rag.encoder.microbatch import AsyncEncoding, MicroBatcher
    from m3rag.encoder.openai_embeddings import OpenAIEncoder
    from m3rag.encoder.sentence_transformer import SentenceTransformerEncoder

__all__ = [
    "AsyncEncoding",
    "CacheStats",
    "CachedEncoder",
    "DenseOnlyEncoder",
    "DiskCache",
    "EmbeddingCache",
    "Encoder",
    "M3Encoder",
    "M3Output",
    "MemoryCache",
    "MicroBatcher",
    "OpenAIEncoder",
    "SentenceTransformerEncoder",
    "TokenAlignment",
    "TokenWeight",
    "colbert_alignment",
    "token_weights",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AsyncEncoding": "m3rag.encoder.microbatch",
        "CacheStats": "m3rag.encoder.cache",
        "CachedEncoder": "m3rag.encoder.cached",
        "DenseOnlyEncoder": "m3rag.encoder.dense_only",
        "DiskCache": "m3rag.encoder.disk_cache",
        "EmbeddingCache": "m3rag.encoder.cache",
        "M3Encoder": "m3rag.encoder.encoder",
        "MemoryCache": "m3rag.encoder.cache",
        "MicroBatcher": "m3rag.encoder.microbatch",
        "OpenAIEncoder": "m3rag.encoder.openai_embeddings",
        "SentenceTransformerEncoder": "m3rag.encoder.sentence_transformer",
        "TokenAlignment": "m3rag.encoder.explain",
        "TokenWeight": "m3rag.encoder.explain",
        "colbert_alignment": "m3rag.encoder.explain",
        "token_weights": "m3rag.encoder.explain",
    },
)
