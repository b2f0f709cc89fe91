"""LlamaIndexLLM: a language model of LlamaIndex's as m3rag's answerers ask for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from m3rag.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from m3rag.answering import Message


class LlamaIndexLLM:
    """An `m3rag.answering.LLM` over any LLM of LlamaIndex's, chatting or completing.

    Its own errors come through as they are; its callbacks and events are those of every call to it.

    Args:
        llm: The language model.

    Raises:
        InputError: If it is none.
    """

    def __init__(self, llm: LLM) -> None:
        if not callable(getattr(llm, "stream_chat", None)):
            raise InputError(f"llm is a {type(llm).__name__}, must be an LLM of LlamaIndex's")
        self.llm = llm

    @property
    def name(self) -> str:
        """The model's name, as its metadata say."""
        return str(self.llm.metadata.model_name)

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The reply in pieces, as they come."""
        for response in self.llm.stream_chat(_messages(messages)):
            if response.delta:
                yield response.delta

    def complete(self, messages: Sequence[Message]) -> str:
        """The whole reply."""
        return self.llm.chat(_messages(messages)).message.content or ""


def _messages(messages: Sequence[Message]) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole(message.role), content=message.content) for message in messages]
