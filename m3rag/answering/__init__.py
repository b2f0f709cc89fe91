"""Answers with citations, by quoting (`Extractive`) or by a language model (`Generative`).

Names are loaded on first use, so that one answerer does not pay for the other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from m3rag.answering.protocol import LLM, Answerer, AnswerEvent, Message

if TYPE_CHECKING:
    from m3rag.answering.extractive import Extractive
    from m3rag.answering.generative import Generative
    from m3rag.answering.openai_chat import OpenAIChat

__all__ = ["LLM", "AnswerEvent", "Answerer", "Extractive", "Generative", "Message", "OpenAIChat"]

_MODULES = {"Extractive": "extractive", "Generative": "generative", "OpenAIChat": "openai_chat"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
