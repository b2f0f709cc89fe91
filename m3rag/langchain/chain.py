"""create_rag_chain: question in; sources, answer and checked citations out, as one LCEL chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypedDict, cast

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    convert_to_messages,
)
from langchain_core.messages.content import Citation
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.config import run_in_executor
from langchain_core.runnables.utils import AddableDict

from m3rag.answering.citations import PageOf
from m3rag.answering.conversation import Turn, rewriting, rewritten
from m3rag.answering.prompt import DEFAULT_CONTEXT_CHARS, ContextLimit, Prompt, build_prompt
from m3rag.answering.protocol import NO_ANSWER_TEXT, check_question
from m3rag.errors import ConfigurationError, InputError, LLMError
from m3rag.langchain.chain_reply import ReplyChecker
from m3rag.langchain.documents import documents_of
from m3rag.langchain.passages import hits_of

CONDENSE_TAG = "m3rag:condense"
"""Of the call that makes a question stand by itself: its tokens are no part of the answer."""

ANSWER_TAG = "m3rag:answer"
"""Of the call that writes the answer."""

Model = Runnable[LanguageModelInput, Any]
Retriever = Runnable[str, list[Document]]


class RagOutput(TypedDict):
    """What the chain gives; streamed, the keys come in this order, `answer` in pieces to be joined.

    Attributes:
        question: As it was searched for: understandable without the history.
        sources: What was found, best first; `[n]` in the answer is `sources[n - 1]`.
        answer: The text; each of its marks names a source.
        citations: LangChain's `Citation`s, see `m3rag.langchain.chain_reply.cited`.
        answered: False when the sources do not answer; `answer` then says so.
    """

    question: str
    sources: list[Document]
    answer: str
    citations: list[Citation]
    answered: bool


def create_rag_chain(
    llm: Model,
    retriever: Retriever,
    *,
    reranker: BaseDocumentCompressor | None = None,
    condense_llm: Model | None = None,
    instructions: str | None = None,
    max_context_chars: int = DEFAULT_CONTEXT_CHARS,
    max_context_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    page_of: PageOf | None = None,
) -> Runnable[Any, Any]:
    """A chain that answers questions from documents and cites them.

    Use:
        ```python
        chain = create_rag_chain(ChatOpenAI(model="gpt-5-mini"), M3Retriever(knowledge_base=knowledge_base, k=5))
        output = chain.invoke("Who proved it first?")
        output["answer"], output["sources"], output["citations"]
        for part in chain.stream({"question": "And when?", "chat_history": history}):
            print(part.get("answer", ""), end="")
        ```

    The input is a question, or `{"question": str, "chat_history": messages}`; the output is a
    `RagOutput`. Sources are streamed before the first piece of the answer, and the pieces together
    are the answer. Its runs are named `condense`, `retrieve`, `rerank` and `answer`; the model's own
    calls have the tags `m3rag:condense` and `m3rag:answer`, so that
    `chain.astream_events(..., include_tags=[ANSWER_TAG])` tells them apart. The passages are fenced
    by a delimiter drawn for each call; the model is not asked where nothing was found, and a reply
    by which it refuses, or that says nothing beside marks of no source, gives `answered=False`.

    Args:
        llm: Any chat model, or one bound to options. The answer is streamed, however the chain is called, and
            LangChain's `with_retry` begins no stream again: give the model its own `max_retries`, or call
            `create_rag_chain(...).with_retry()`, which `invoke` honours.
        retriever: Any retriever, such as `M3Retriever`.
        reranker: Orders what was found anew, such as `M3Reranker`.
        condense_llm: Makes a question stand by itself where there is a history; by default `llm`.
        instructions: Put behind the rules of the prompt, such as a tone or a language.
        max_context_chars: Most characters of passages in the prompt; those that do not fit are left out.
        max_context_tokens: Most tokens of them as well, counted by `count_tokens`.
        count_tokens: By default the model's own `get_num_tokens`, which some models count by guess.
        page_of: Looks up the page of a quote; by default that on which its source begins.

    Raises:
        ConfigurationError: If a limit is not positive, the model cannot count tokens, or a model, the retriever or
            the reranker is none of LangChain's.

    When run, the chain raises InputError for a blank question, an input of another form, or a retriever that gives no
    list of Documents, and LLMError where the model replies with nothing, or with no text.
    """
    if max_context_tokens is not None and count_tokens is None:
        count_tokens = getattr(llm, "get_num_tokens", None)
    _require("llm", llm, Runnable, "chat model such as ChatOpenAI(...)")
    _require("condense_llm", condense_llm, (Runnable, type(None)), "chat model such as ChatOpenAI(...)")
    _require("retriever", retriever, Runnable, "retriever such as M3Retriever")
    _require("reranker", reranker, (BaseDocumentCompressor, type(None)), "compressor such as M3Reranker")
    limit = ContextLimit(max_context_chars, max_context_tokens, count_tokens)
    condense = _Condense((condense_llm or llm).with_config(tags=[CONDENSE_TAG]))
    answer = _Answer(llm.with_config(tags=[ANSWER_TAG]), limit, instructions, page_of)
    chain: Runnable[Any, Any] = RunnableLambda(condense.run, condense.arun, name="condense")
    chain |= RunnablePassthrough.assign(sources=itemgetter("question") | retriever.with_config(run_name="retrieve"))
    if reranker is not None:
        rerank = _Rerank(reranker)
        chain |= RunnablePassthrough.assign(sources=RunnableLambda(rerank.run, rerank.arun, name="rerank"))
    # Its annotations leave out the config, which it hands to whoever takes one.
    stream, astream = cast("Any", answer.run), cast("Any", answer.arun)
    chain |= RunnableGenerator(stream, astream, name="answer")
    return chain.with_config(run_name="rag")


def _require(name: str, value: Any, kind: Any, example: str) -> None:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is a {type(value).__name__}, must be a LangChain {example}")


@dataclass(frozen=True, slots=True)
class _Condense:
    """The first stage: a question with what came before to a question that stands by itself."""

    llm: Model

    def run(self, given: str | dict[str, Any], config: RunnableConfig) -> AddableDict:
        question, prompt = _asked(given)
        reply = self.llm.invoke(prompt, config) if prompt else None
        return AddableDict(question=question if reply is None else rewritten(_text(reply), question))

    async def arun(self, given: str | dict[str, Any], config: RunnableConfig) -> AddableDict:
        question, prompt = _asked(given)
        reply = await self.llm.ainvoke(prompt, config) if prompt else None
        return AddableDict(question=question if reply is None else rewritten(_text(reply), question))


@dataclass(frozen=True, slots=True)
class _Rerank:
    """The stage between: what was found in another order."""

    reranker: BaseDocumentCompressor

    def run(self, found: dict[str, Any], config: RunnableConfig) -> list[Document]:
        compress = self.reranker.compress_documents
        return list(compress(found["sources"], found["question"], callbacks=config.get("callbacks")))

    async def arun(self, found: dict[str, Any], config: RunnableConfig) -> list[Document]:
        compress = self.reranker.acompress_documents
        return list(await compress(found["sources"], found["question"], callbacks=config.get("callbacks")))


@dataclass(frozen=True, slots=True)
class _Answer:
    """The last stage: hands on question and sources, then the answer piece by piece, then its citations."""

    llm: Model
    limit: ContextLimit
    instructions: str | None
    page_of: PageOf | None

    def run(self, inputs: Iterator[dict[str, Any]], config: RunnableConfig) -> Iterator[AddableDict]:
        found = AddableDict()
        for part in inputs:
            found = found + AddableDict(part)
            yield AddableDict(part)
        sources = documents_of(found["sources"])
        if not sources:
            yield from _refused()
            return
        prompt, checker = self._begin(found["question"], sources)
        for reply in self.llm.stream(self._messages(prompt), config):
            if piece := checker.feed(_text(reply)):
                yield AddableDict(answer=piece)
        yield from _end(checker)

    async def arun(self, inputs: AsyncIterator[dict[str, Any]], config: RunnableConfig) -> AsyncIterator[AddableDict]:
        found = AddableDict()
        async for part in inputs:
            found = found + AddableDict(part)
            yield AddableDict(part)
        sources = documents_of(found["sources"])
        if not sources:
            for part in _refused():
                yield part
            return
        # On threads: tokens are counted, and pages looked up, by whatever the caller has given.
        prompt, checker = await run_in_executor(None, self._begin, found["question"], sources)
        async for reply in self.llm.astream(self._messages(prompt), config):
            if piece := checker.feed(_text(reply)):
                yield AddableDict(answer=piece)
        for part in await run_in_executor(None, list, _end(checker)):
            yield part

    def _begin(self, question: str, sources: Sequence[Document]) -> tuple[Prompt, ReplyChecker]:
        prompt = build_prompt(question, hits_of(sources), limit=self.limit)
        return prompt, ReplyChecker(prompt.passages, page_of=self.page_of)

    def _messages(self, prompt: Prompt) -> list[BaseMessage]:
        rules, question = (message.content for message in prompt.messages)
        if self.instructions:
            rules = f"{rules}\n\n{self.instructions}"
        return [SystemMessage(rules), HumanMessage(question)]


def _end(checker: ReplyChecker) -> Iterator[AddableDict]:
    if rest := checker.finish():
        yield AddableDict(answer=rest)
    reply = checker.checked()
    if not reply.text:
        raise LLMError(
            "the language model replied with nothing: ask again, raise its max_tokens (a model that thinks first may "
            "have used them up), or choose another model"
        )
    yield AddableDict(citations=list(reply.citations))
    yield AddableDict(answered=reply.answered)


def _refused() -> Iterator[AddableDict]:
    yield AddableDict(answer=NO_ANSWER_TEXT)
    yield AddableDict(citations=[])
    yield AddableDict(answered=False)


def _asked(given: str | dict[str, Any]) -> tuple[str, list[BaseMessage]]:
    """The question, and the prompt that has it rewritten; empty where there is no history."""
    if isinstance(given, str):
        given = {"question": given}
    question = given.get("question") if isinstance(given, dict) else None
    if not isinstance(question, str):
        raise InputError(
            f'the chain was given {str(given)[:80]!r}: give a question or {{"question": str, "chat_history": messages}}'
        )
    check_question(question)
    history = given.get("chat_history") or []
    if isinstance(history, str | dict | BaseMessage):
        # LangChain would take its letters or keys for messages.
        raise InputError(f"chat_history is a {type(history).__name__}, must be a list of messages: put it in a list")
    try:
        turns = turns_of(convert_to_messages(history))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"chat_history is no list of messages: {error}") from error
    if not turns:
        return question, []
    rules, shown = (message.content for message in rewriting(question, turns))
    return question, [SystemMessage(rules), HumanMessage(shown)]


def turns_of(messages: Sequence[BaseMessage]) -> list[Turn]:
    """The questions of a chat and their answers; messages of systems and tools are left out."""
    turns: list[Turn] = []
    for message in messages:
        text = _text(message)
        role = message.role if isinstance(message, ChatMessage) else ""
        if isinstance(message, HumanMessage) or role in ("user", "human"):
            turns.append(Turn(text, ""))
        elif (isinstance(message, AIMessage) or role in ("assistant", "ai")) and text:
            question, before = (turns[-1].question, turns[-1].answer) if turns else ("", "")
            turns[-1:] = [Turn(question, f"{before}\n{text}".strip())]
    return turns


def _text(reply: Any) -> str:
    """What a model said; its thinking and its calls of tools are not part of it."""
    text = reply if isinstance(reply, str) else getattr(reply, "text", None)
    if not isinstance(text, str):
        raise LLMError(
            f"the language model gave a {type(reply).__name__}, must give messages or text: give the chain a model "
            "without with_structured_output"
        )
    return str(text)
