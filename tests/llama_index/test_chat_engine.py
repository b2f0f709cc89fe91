from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.memory import ChatMemoryBuffer

from m3rag import KnowledgeBase
from m3rag.answering import Turn
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.errors import InputError
from m3rag.llama_index import M3ChatEngine, create_chat_engine
from m3rag.llama_index.chat_engine import turns_of
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

TEXTS = {"a.pdf": "Ducks swim on ponds.", "b.txt": "Trains run on rails."}

FIRST = ("Ducks swim on ponds [1].",)
SECOND = ("Where do trains run?", "Trains run on rails [1].")
"""What the model says to the second question: first the question that stands by itself."""


@pytest.fixture(scope="module")
def kb() -> Iterator[KnowledgeBase]:
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        kb.upsert([Chunk(key, key, text, 0, len(text)) for key, text in TEXTS.items()])
        yield kb


def said(engine: M3ChatEngine) -> list[tuple[str, str | None]]:
    return [(message.role.value, message.content) for message in engine.chat_history]


def test_a_question_is_made_to_stand_by_itself(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    llm = scripted(*FIRST, *SECOND)
    engine = create_chat_engine(kb, llm, k=1)
    first = engine.chat("Where do ducks swim?")
    assert str(first) == FIRST[0]
    assert len(llm.prompts) == 1  # nothing to rewrite yet
    second = engine.chat("And trains?")
    assert str(second) == "Trains run on rails [1]."
    assert "And trains?" in llm.prompts[1]
    assert FIRST[0] in llm.prompts[1]
    assert "Where do trains run?" in llm.prompts[2]
    assert second.metadata["citations"][0]["document_id"] == "b.txt"
    assert [node.node_id for node in second.source_nodes] == ["b.txt"]
    assert said(engine) == [
        ("user", "Where do ducks swim?"),
        ("assistant", FIRST[0]),
        ("user", "And trains?"),
        ("assistant", "Trains run on rails [1]."),
    ]
    engine.reset()
    assert engine.chat_history == []


def test_a_streamed_turn_is_remembered_when_it_is_complete(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    engine = create_chat_engine(kb, scripted("Ducks swim on ponds [1][8]."))
    response = engine.stream_chat("Where do ducks swim?")
    assert response.source_nodes
    assert said(engine) == []
    pieces = list(response.response_gen)
    assert len(pieces) > 3
    assert response.response == "".join(pieces) == "Ducks swim on ponds [1][8]."
    assert response.metadata["answer"] == "Ducks swim on ponds [1]."
    assert response.metadata["citations"][0]["quote"] == "Ducks swim on ponds."
    assert said(engine)[1] == ("assistant", "Ducks swim on ponds [1].")


async def test_asynchronous_turns_are_the_same(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    engine = create_chat_engine(kb, scripted(*FIRST, *SECOND))
    response = await engine.astream_chat("Where do ducks swim?")
    assert "".join([piece async for piece in response.async_response_gen()]) == FIRST[0]
    assert response.metadata["answered"] is True
    assert str(await engine.achat("And trains?")) == "Trains run on rails [1]."
    assert len(engine.chat_history) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_is_said_and_remembered(kb: KnowledgeBase, scripted: Callable[..., Any], streamed: bool) -> None:
    engine = create_chat_engine(kb, scripted("NOT_IN_DOCUMENTS"))
    if streamed:
        response: Any = engine.stream_chat("What do foxes eat?")
        assert list(response.response_gen) == [NO_ANSWER_TEXT]
    else:
        response = engine.chat("What do foxes eat?")
    assert response.response == NO_ANSWER_TEXT
    assert response.metadata["answered"] is False
    assert said(engine)[-1] == ("assistant", NO_ANSWER_TEXT)


def test_of_a_turn_that_failed_nothing_stays(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    class Broken(type(scripted())):  # type: ignore[misc]
        def complete(self, *arguments: Any, **options: Any) -> Any:
            raise ConnectionError("no model")

    engine = create_chat_engine(kb, Broken(replies=[]))
    with pytest.raises(ConnectionError, match="no model"):
        engine.chat("ducks?")
    with pytest.raises(ConnectionError, match="no model"):
        list(engine.stream_chat("ducks?").response_gen)
    assert engine.chat_history == []


def test_a_history_or_a_memory_may_be_given(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    before = [
        ChatMessage(role=MessageRole.SYSTEM, content="Be kind."),
        ChatMessage(role=MessageRole.USER, content="Where do ducks swim?"),
        ChatMessage(role=MessageRole.ASSISTANT, content="On ponds."),
    ]
    memory = ChatMemoryBuffer.from_defaults()
    engine = create_chat_engine(kb, scripted(*SECOND), memory=memory, chat_history=before)
    assert str(engine.chat("And trains?")) == "Trains run on rails [1]."
    assert len(memory.get_all()) == 5
    assert len(before) == 3
    llm = scripted(*FIRST)
    engine = create_chat_engine(kb, llm, chat_history=before)
    engine.chat("Where do ducks swim?", chat_history=[])
    assert len(llm.prompts) == 1  # no history any more
    assert len(engine.chat_history) == 2


def test_what_is_no_history_is_refused_and_changes_nothing(kb: KnowledgeBase) -> None:
    with pytest.raises(InputError, match="chat_history holds a str, must be a list of ChatMessage"):
        create_chat_engine(kb, chat_history="hello")  # type: ignore[arg-type]
    before = [ChatMessage(role=MessageRole.USER, content="ducks?")]
    engine = create_chat_engine(kb, chat_history=before)
    with pytest.raises(InputError, match="chat_history holds a dict, must be a list of ChatMessage"):
        engine.chat("And trains?", chat_history=[{"role": "user", "content": "x"}])  # type: ignore[list-item]
    assert engine.chat_history == before


def test_a_memory_that_takes_no_empty_list_will_do(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    class Strict(ChatMemoryBuffer):
        """As LlamaIndex's Memory, whose database fails."""

        def put_messages(self, messages: list[ChatMessage]) -> None:
            assert messages
            super().put_messages(messages)

    engine = create_chat_engine(kb, scripted(*FIRST), memory=Strict.from_defaults())
    engine.chat("Where do ducks swim?")
    assert len(engine.chat_history) == 2


def test_without_a_language_model_it_quotes(kb: KnowledgeBase) -> None:
    engine = create_chat_engine(kb)
    assert str(engine.chat("Do ducks swim on ponds?")) == "Ducks swim on ponds. [1]"
    assert str(engine.chat("Do trains run on rails?")) == "Trains run on rails. [1]"


def test_what_a_memory_recalls_for_a_question_is_its_conversation(
    kb: KnowledgeBase, scripted: Callable[..., Any]
) -> None:
    class Recalling(ChatMemoryBuffer):
        """As LlamaIndex's VectorMemory, which cannot give all that it holds."""

        def get(self, input: str | None = None, **options: Any) -> list[ChatMessage]:
            return [message for message in super().get_all() if str(input).split()[-1] in str(message.content)]

        def get_all(self) -> list[ChatMessage]:
            raise ValueError("only what fits a question")

    before = [
        ChatMessage(role=role, content=text)
        for topic in ("ducks", "trains")
        for role, text in ((MessageRole.USER, f"What of {topic}"), (MessageRole.ASSISTANT, f"I like {topic}"))
    ]
    llm = scripted(*SECOND)
    memory = Recalling.from_defaults(chat_history=before)
    assert str(create_chat_engine(kb, llm, memory=memory).chat("Where do they run, those trains")) == SECOND[1]
    assert "I like trains" in llm.prompts[0]
    assert "I like ducks" not in llm.prompts[0]


def test_turns_are_questions_with_their_answers() -> None:
    messages = [
        ChatMessage(role=MessageRole.ASSISTANT, content="Hello!"),
        ChatMessage(role=MessageRole.USER, content="lost"),
        ChatMessage(role=MessageRole.USER, content="q"),
        ChatMessage(role=MessageRole.TOOL, content="t"),
        ChatMessage(role=MessageRole.ASSISTANT, content="a"),
        ChatMessage(role=MessageRole.USER, content="open"),
    ]
    assert turns_of(messages) == [Turn("q", "a")]


def test_an_answer_may_come_in_parts_around_calls_of_tools() -> None:
    messages = [
        ChatMessage(role=MessageRole.USER, content="q"),
        ChatMessage(role=MessageRole.ASSISTANT, content=None, additional_kwargs={"tool_calls": ["search"]}),
        ChatMessage(role=MessageRole.TOOL, content="t"),
        ChatMessage(role=MessageRole.ASSISTANT, content="It is"),
        ChatMessage(role=MessageRole.TOOL, content="t"),
        ChatMessage(role=MessageRole.ASSISTANT, content="a duck."),
    ]
    assert turns_of(messages) == [Turn("q", "It is\na duck.")]
