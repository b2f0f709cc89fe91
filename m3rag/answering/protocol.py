"""What answers a question from passages, and the language model that some answerers use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from m3rag.errors import InputError
from m3rag.types import Answer, Hit

NO_ANSWER_TEXT = "The documents do not answer this question."
"""What an answerer shows when it refuses; `Answer.answered` is the fact to branch on."""

AnswerEvent: TypeAlias = str | Answer
"""One step of a streamed answer: pieces of text as they come, then one `Answer`, always last.

The pieces are for showing while one waits. The `Answer` replaces them: its marks are checked and
renumbered.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation with a language model."""

    role: Literal["system", "user", "assistant"]
    content: str


class LLM(Protocol):
    """A language model that continues a conversation."""

    @property
    def name(self) -> str:
        """What people know the model by."""

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The reply in pieces, as they come.

        Raises:
            LLMError: If the model cannot be reached, refuses, or breaks off.
        """

    def complete(self, messages: Sequence[Message]) -> str:
        """The whole reply; raises as `stream` does."""


@runtime_checkable
class SizedLLM(LLM, Protocol):
    """A language model that knows what its context holds, so that prompts can be fitted to it."""

    def count_tokens(self, text: str) -> int:
        """The tokens of a text, without specials."""

    def room(self, messages: Sequence[Message]) -> int:
        """How many tokens can be added to a prompt that keeps free what a reply needs.

        Raises:
            LLMError: If there is none.
        """


class Answerer(Protocol):
    """Turns a question and the passages found for it into an answer that cites them."""

    def answer(self, question: str, hits: Sequence[Hit]) -> Answer:
        """Answer from the passages, or say that they do not answer.

        Args:
            question: As the user asked it.
            hits: The passages found, best first.

        Raises:
            InputError: If the question is blank.
        """

    def stream(self, question: str, hits: Sequence[Hit]) -> Iterator[AnswerEvent]:
        """As `answer`, in events: pieces of text, then the `Answer`."""


def refusal(hits: Sequence[Hit], *, support: float | None = None) -> Answer:
    """The answer that says there is none; the passages stay in it for the user to look at."""
    return Answer(text=NO_ANSWER_TEXT, citations=(), hits=tuple(hits), answered=False, support=support)


def check_question(question: str) -> None:
    """Refuse a blank question.

    Raises:
        InputError: If there is nothing but white space.
    """
    if not question.strip():
        raise InputError(f"the question {question!r} is blank: ask something in words")
