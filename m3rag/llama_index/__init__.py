"""m3rag in LlamaIndex: `pip install "m3rag[llama-index]"`.

Names load on first use, so that importing this costs nothing and needs no LlamaIndex.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3rag.llama_index.embedding import M3Embedding
    from m3rag.llama_index.retriever import M3Retriever

__all__ = ["M3Embedding", "M3Retriever"]

_HOMES = {"M3Embedding": "m3rag.llama_index.embedding", "M3Retriever": "m3rag.llama_index.retriever"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise ImportError(
            f'm3rag.llama_index.{name} needs llama-index-core: pip install "m3rag[llama-index]"', name=error.name
        ) from error
