"""Answers written by a language model from the passages, with their citations checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from m3rag.answering.citations import PageOf, cite
from m3rag.answering.prompt import (
    DEFAULT_CONTEXT_CHARS,
    ContextLimit,
    Prompt,
    build_prompt,
    is_refusal,
    may_become_refusal,
)
from m3rag.answering.protocol import LLM, AnswerEvent, SizedLLM, check_question, refusal
from m3rag.answering.thinking import ThinkingFilter, without_thinking
from m3rag.errors import LLMError
from m3rag.types import Answer, Chunk, Hit


class Generative:
    """An `Answerer` that lets a language model write.

    What it promises of an `Answer`: every mark outside code names one of its citations, every
    citation quotes a passage the model was shown, and `support` is None. It does not promise that
    the model read the passage rightly, nor that it cited at all: a reply without one valid mark is
    still `answered`, with no citations, and whoever shows it should say that no source backs it.

    Args:
        llm: The language model.
        max_context_chars: Most characters of passages in the prompt.
        max_context_tokens: Most tokens of them as well; needs `count_tokens`. By default what the context
            of a `SizedLLM` has room for.
        count_tokens: Counts tokens as the model does.
        page_of: Looks up the page of a quote; see `cite`.

    Raises:
        ConfigurationError: If a limit is not positive or cannot be counted.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        max_context_chars: int = DEFAULT_CONTEXT_CHARS,
        max_context_tokens: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
        page_of: PageOf | None = None,
    ) -> None:
        self.llm = llm
        self.limit = ContextLimit(max_context_chars, max_context_tokens, count_tokens)
        self.page_of = page_of

    def answer(self, question: str, hits: Sequence[Hit]) -> Answer:
        """Answer from the passages.

        Args:
            question: As the user asked it.
            hits: The passages found, best first; without any the model is not asked.

        Raises:
            InputError: If the question is blank.
            LLMError: If the model fails or replies with nothing.
        """
        check_question(question)
        if not hits:
            return refusal(hits)
        prompt = self._prompt(question, hits)
        return self._checked(without_thinking(self.llm.complete(prompt.messages)), prompt.passages, hits)

    def stream(self, question: str, hits: Sequence[Hit]) -> Iterator[AnswerEvent]:
        """As `answer`: the model's raw text as it comes, its thinking left out, then the checked `Answer`.

        Text is held back as long as it may turn out to be the model's sign of refusal, so that a
        refusal gives no pieces at all.
        """
        check_question(question)
        return self._stream(question, hits)

    def _stream(self, question: str, hits: Sequence[Hit]) -> Iterator[AnswerEvent]:
        if not hits:
            yield refusal(hits)
            return
        prompt = self._prompt(question, hits)
        reply: list[str] = []
        held = ""
        holding = True
        answer = ThinkingFilter()
        for raw in self.llm.stream(prompt.messages):
            piece = answer.feed(raw)
            reply.append(piece)
            held += piece
            holding = holding and may_become_refusal(held)
            if held and not holding:
                yield held
                held = ""
        rest = answer.finish()
        held += rest
        text = "".join(reply) + rest
        if held and not is_refusal(text):
            yield held
        yield self._checked(text, prompt.passages, hits)

    def _prompt(self, question: str, hits: Sequence[Hit]) -> Prompt:
        limit, llm = self.limit, self.llm
        if limit.tokens is None and isinstance(llm, SizedLLM):
            room = llm.room(build_prompt(question, ()).messages)
            limit = replace(limit, tokens=room, count_tokens=llm.count_tokens)
        return build_prompt(question, hits, limit=limit)

    def _checked(self, reply: str, passages: Sequence[Chunk], hits: Sequence[Hit]) -> Answer:
        if is_refusal(reply):
            return refusal(hits)
        text, citations = cite(reply, passages, page_of=self.page_of)
        if not any(map(str.isalnum, text)):
            if reply.strip():  # nothing but marks of no passage
                return refusal(hits)
            raise LLMError(
                f"{self.llm.name} replied with nothing: ask again, raise max_tokens (a model that thinks first may "
                "have used them up), or choose another model"
            )
        return Answer(text=text, citations=citations, hits=tuple(hits), answered=True)
