"""A language model in a GGUF file, run by llama.cpp on this machine: `LocalChat`, of the extra `local`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.answering.local.chat import LocalChat

__all__ = ["LocalChat"]

__getattr__, __dir__ = lazy_names(__name__, {"LocalChat": "m3rag.answering.local.chat"})
