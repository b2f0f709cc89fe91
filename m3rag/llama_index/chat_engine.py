"""A chat engine whose answers have checked citations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer

from m3rag.answering import Turn
from m3rag.errors import InputError
from m3rag.llama_index.answers import Answers, metadata_of, nodes_of, on_threads
from m3rag.llama_index.llm import LlamaIndexLLM
from m3rag.types import Answer

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.types import Hit


def create_chat_engine(
    knowledge_base: KnowledgeBase,
    llm: LLM | None = None,
    *,
    memory: BaseMemory | None = None,
    chat_history: Sequence[ChatMessage] = (),
    callback_manager: CallbackManager | None = None,
    **options: Any,
) -> M3ChatEngine:
    """A chat engine over a knowledge base, with checked citations.

    Example:
        ```python
        engine = create_chat_engine(KnowledgeBase("my-index"), llm)
        print(engine.chat("Who proved it first?"))
        response = engine.stream_chat("And when?")  # searched for as a question that stands by itself
        for piece in response.response_gen:
            print(piece, end="")
        print(response.metadata["citations"])
        ```

    Args:
        knowledge_base: What is asked.
        llm: Any LLM of LlamaIndex's. None for what the knowledge base answers by itself; without any language
            model a question is searched for as it is, whatever was said before.
        memory: Holds the conversation, and gives what of it a question may lean on; by default a new one in memory.
        chat_history: What was said before, put into the memory.
        callback_manager: Told of each stage.
        **options: Of the search, as for `create_query_engine`.

    Raises:
        InputError: If an argument cannot be used.
        ConfigurationError: If mode, weights or fusion are unknown, or do not go together.
    """
    model = None if llm is None else LlamaIndexLLM(llm)
    answers = Answers(knowledge_base, model, options, callback_manager or CallbackManager([]))
    kept = memory if memory is not None else ChatMemoryBuffer.from_defaults()
    if chat_history:  # LlamaIndex's Memory takes no empty list
        kept.put_messages(_messages(chat_history))
    return M3ChatEngine(answers, kept)


@dataclass
class M3StreamingChatResponse(StreamingAgentChatResponse):
    """A streamed answer; `metadata` are filled when it has been read to its end."""

    metadata: dict[str, Any] = field(default_factory=dict)


class M3ChatEngine(BaseChatEngine):
    """A conversation with a knowledge base; made by `create_chat_engine`, one for each conversation.

    A response has `source_nodes` and `metadata` as those of `M3QueryEngine`. What is said goes into the memory
    when an answer is complete: of one that failed, or was not read to its end, nothing stays.
    """

    def __init__(self, answers: Answers, memory: BaseMemory) -> None:
        self._answers = answers
        self._memory = memory
        self.callback_manager = answers.callback_manager

    @property
    def chat_history(self) -> list[ChatMessage]:
        """All that was said."""
        return list(self._memory.get_all())

    def reset(self) -> None:
        """Forget what was said."""
        self._memory.reset()

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer.

        Args:
            message: A question, which may lean on those before it.
            chat_history: Takes the place of what was said.

        Raises:
            InputError: If `chat_history` holds something other than messages.
        """
        with self.callback_manager.as_trace("chat"):
            question, hits = self._found(message, chat_history)
            answer = self._answers.synthesize(question, hits)
            self._remember(message, answer.text)
            return AgentChatResponse(
                response=answer.text, source_nodes=nodes_of(answer.hits), metadata=metadata_of(answer)
            )

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """As `chat`, on a thread."""
        return await asyncio.to_thread(self.chat, message, chat_history)

    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> M3StreamingChatResponse:
        """As `chat`, the text as it is written: `response.response_gen`."""
        with self.callback_manager.as_trace("chat"):
            question, hits = self._found(message, chat_history)
        metadata: dict[str, Any] = {}
        stream = self._said(message, self._answers.stream(question, hits), metadata)
        return _streamed(hits, metadata, chat_stream=stream)

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> M3StreamingChatResponse:
        """As `stream_chat`, without blocking the event loop: `response.async_response_gen()`."""
        with self.callback_manager.as_trace("chat"):
            question, hits = await asyncio.to_thread(self._found, message, chat_history)
        metadata: dict[str, Any] = {}
        stream = _generator(on_threads(self._said(message, self._answers.stream(question, hits), metadata)))
        return _streamed(hits, metadata, achat_stream=stream)

    def _found(self, message: str, chat_history: list[ChatMessage] | None) -> tuple[str, list[Hit]]:
        """The question that stands by itself, and the passages for it."""
        if chat_history is not None:
            self._memory.set(_messages(chat_history))
        question = self._answers.standalone(message, turns_of(self._memory.get(input=message)))
        return question, self._answers.retrieve(question)

    def _said(self, message: str, events: Iterator[str | Answer], metadata: dict[str, Any]) -> Iterator[ChatResponse]:
        text = ""
        for event in events:
            if isinstance(event, Answer):
                self._remember(message, event.text)
                metadata.update(metadata_of(event))
            else:
                text += event
                yield ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=event)

    def _remember(self, question: str, answer: str) -> None:
        self._memory.put_messages(
            [
                ChatMessage(role=MessageRole.USER, content=question),
                ChatMessage(role=MessageRole.ASSISTANT, content=answer),
            ]
        )


def turns_of(messages: Sequence[ChatMessage]) -> list[Turn]:
    """The questions of a conversation with the answers that were given; other messages are left out."""
    turns: list[Turn] = []
    question: str | None = None
    for message in messages:
        text = message.content or ""
        if message.role == MessageRole.USER:
            question = text
        elif message.role == MessageRole.ASSISTANT and text:  # one that calls a tool often says nothing
            if question is not None:
                turns.append(Turn(question, text))
            elif turns:
                turns[-1] = Turn(turns[-1].question, f"{turns[-1].answer}\n{text}")
            question = None
    return turns


def _messages(given: Sequence[ChatMessage]) -> list[ChatMessage]:
    strange = [message for message in given if not isinstance(message, ChatMessage)]
    if strange:
        raise InputError(
            f"chat_history holds a {type(strange[0]).__name__}, must be a list of ChatMessage: "
            'ChatMessage(role="user", content=...)'
        )
    return list(given)


def _streamed(hits: Sequence[Hit], metadata: dict[str, Any], **stream: Any) -> M3StreamingChatResponse:
    # LlamaIndex's own way, a thread that reads the stream into the memory, would lose the citations.
    return M3StreamingChatResponse(source_nodes=nodes_of(hits), metadata=metadata, is_writing_to_memory=False, **stream)


async def _generator(stream: AsyncIterator[ChatResponse]) -> Any:
    async for response in stream:
        yield response
