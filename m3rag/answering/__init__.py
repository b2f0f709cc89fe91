"""Answers with citations, by quoting (`Extractive`) or by a language model (`Generative`).

Names are loaded on first use, so that one answerer does not pay for the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.answering.conversation import Turn
from m3rag.answering.protocol import LLM, Answerer, AnswerEvent, Message, SizedLLM

if TYPE_CHECKING:
    from m3rag.answering.extractive import Extractive
    from m3rag.answering.generative import Generative
    from m3rag.answering.local import LocalChat
    from m3rag.answering.openai_chat import OpenAIChat

__all__ = [
    "LLM",
    "AnswerEvent",
    "Answerer",
    "Extractive",
    "Generative",
    "LocalChat",
    "Message",
    "OpenAIChat",
    "SizedLLM",
    "Turn",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Extractive": "m3rag.answering.extractive",
        "Generative": "m3rag.answering.generative",
        "LocalChat": "m3rag.answering.local",
        "OpenAIChat": "m3rag.answering.openai_chat",
    },
)
