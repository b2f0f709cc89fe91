"""m3rag in LangChain: `pip install "m3rag[langchain]"`.

Names load on first use, so that importing this costs nothing and needs no LangChain.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3rag.langchain.embeddings import M3Embeddings
    from m3rag.langchain.retriever import M3Retriever

__all__ = ["M3Embeddings", "M3Retriever"]

_HOMES = {"M3Embeddings": "m3rag.langchain.embeddings", "M3Retriever": "m3rag.langchain.retriever"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        raise ImportError(
            f'm3rag.langchain.{name} needs langchain-core: pip install "m3rag[langchain]"', name=error.name
        ) from error
