"""Answers: what the query and the chat engine do alike, from a question to a checked answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.schema import NodeWithScore
from llama_index_instrumentation import get_dispatcher

from m3rag.answering import Answerer, Extractive, Generative, Turn
from m3rag.answering.conversation import standalone
from m3rag.chunking import widened
from m3rag.errors import InputError
from m3rag.llama_index.filters import condition_of
from m3rag.llama_index.llm import LlamaIndexLLM
from m3rag.llama_index.nodes import to_passages, to_scored_node
from m3rag.llama_index.search import Search
from m3rag.llama_index.spans import open_span
from m3rag.retrieval import SearchOptions
from m3rag.retrieval.options import require_known, require_usable
from m3rag.types import Answer, Hit

if TYPE_CHECKING:
    from m3rag.knowledge_base import KnowledgeBase

T = TypeVar("T")

dispatcher = get_dispatcher(__name__)

_OPTIONS = (SearchOptions.__annotations__.keys() - {"filter"}) | {"filters"}


@dataclass(frozen=True)
class Answers:
    """Questions to a knowledge base, answered by a language model of LlamaIndex's or by its own means.

    Attributes:
        knowledge_base: What is asked.
        llm: None for what the knowledge base answers by itself: its own language model, or quotation.
        options: Of the search, with `filters` as LlamaIndex has them.
        callback_manager: Told of each stage, as LlamaIndex's instrumentation is.
    """

    knowledge_base: KnowledgeBase
    llm: LlamaIndexLLM | None
    options: dict[str, Any]
    callback_manager: CallbackManager

    def __post_init__(self) -> None:
        if not callable(getattr(self.knowledge_base, "passages", None)):
            raise InputError(f"knowledge_base is {self.knowledge_base!r}, must be an m3rag.KnowledgeBase")
        require_known("an engine", self.options, sorted(_OPTIONS))
        require_usable(cast("SearchOptions", self._searching()))
        self._condition()  # what is wrong with the filters is said now

    @property
    def answerer(self) -> Answerer:
        """What turns passages into answers."""
        return self.knowledge_base.answerer if self.llm is None else Generative(self.llm, page_of=self._page_of)

    def standalone(self, question: str, history: Sequence[Turn]) -> str:
        """The question, made understandable by itself."""
        if self.llm is None:
            return self.knowledge_base.standalone(question, history)
        return standalone(self.llm, question, history)

    @dispatcher.span
    def retrieve(self, question: str, strings: Sequence[str] | None = None) -> list[Hit]:
        """The passages that an answer is made from.

        Args:
            question: What is answered.
            strings: Are searched for together in place of the question, such as a hypothetical answer.
        """
        dispatcher.event(RetrievalStartEvent(str_or_query_bundle=question))
        with self.callback_manager.event(CBEventType.RETRIEVE, payload={EventPayload.QUERY_STR: question}) as event:
            hits = self._passages("\n".join(strings or [question]))
            nodes = nodes_of(hits)
            event.on_end(payload={EventPayload.NODES: nodes})
        dispatcher.event(RetrievalEndEvent(str_or_query_bundle=question, nodes=nodes))
        return hits

    def _passages(self, question: str) -> list[Hit]:
        kb, condition = self.knowledge_base, self._condition()
        options = self._searching()
        if self.llm is None and condition.exact:
            return kb.passages(question, **options, filter=condition.filter or None)
        if options.get("k") is None:
            options["k"] = kb.settings.answer_passages
        hits = Search(kb, question, condition, options=cast("Any", options)).run()
        return kb.expanded(self.answerer, hits) if self.llm is None else widened(hits, kb.store.chunks_of)

    def passages(self, nodes: Sequence[NodeWithScore]) -> list[Hit]:
        """Nodes as the passages that an answer is made from; a quoted one is made from the chunks that they are of.

        Raises:
            InputError: If answers are quoted, and a node is not of this index.
        """
        found = to_passages([node.node for node in nodes])
        if isinstance(self.answerer, Extractive):
            stored = {chunk.id: chunk for chunk in self.knowledge_base.store.get([node.node_id for node in nodes])}
            strange = [node.node_id for node in nodes if node.node_id not in stored]
            if strange:
                raise InputError(
                    f"node {strange[0]!r} is not in the index, which answers without a language model are quoted from: "
                    "give nodes that the engine retrieved, or make it with an llm"
                )
            found = [stored[node.node_id] for node in nodes]
        return [Hit(chunk, node.score or 0.0) for chunk, node in zip(found, nodes, strict=True)]

    @dispatcher.span
    def synthesize(self, question: str, hits: Sequence[Hit]) -> Answer:
        """The answer, whole."""
        with self._synthesizing(question) as told:
            answer = self.answerer.answer(question, hits)
            told(answer)
        return answer

    def stream(self, question: str, hits: Sequence[Hit]) -> Iterator[str | Answer]:
        """The answer in pieces, then the Answer; a refusal gives its text as the one piece."""
        return _in_one_context(self._stream(question, hits))

    def _stream(self, question: str, hits: Sequence[Hit]) -> Generator[str | Answer, None, None]:
        with open_span("synthesize", self._stream, question, hits):
            yield ""  # to `_in_one_context`
            with self._synthesizing(question) as told:
                shown = False
                for piece in self.answerer.stream(question, hits):
                    if isinstance(piece, Answer):
                        if not shown:
                            yield piece.text
                        told(piece)
                    shown = True
                    yield piece

    @contextmanager
    def _synthesizing(self, question: str) -> Iterator[Callable[[Answer], None]]:
        dispatcher.event(SynthesizeStartEvent(query=question))
        with self.callback_manager.event(CBEventType.SYNTHESIZE, payload={EventPayload.QUERY_STR: question}) as event:

            def told(answer: Answer) -> None:
                event.on_end(payload={EventPayload.RESPONSE: answer.text})
                dispatcher.event(SynthesizeEndEvent(query=question, response=response_of(answer)))

            yield told

    def _searching(self) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key != "filters"}

    def _condition(self) -> Any:
        return condition_of(self.options.get("filters"))

    def _page_of(self, document_id: str, position: int) -> int | None:
        record = self.knowledge_base.store.document(document_id)
        return record.page_of(position) if record else None


def nodes_of(hits: Sequence[Hit]) -> list[NodeWithScore]:
    """The passages as nodes, best first."""
    return [to_scored_node(hit) for hit in hits]


def response_of(answer: Answer) -> Response:
    """An answer as LlamaIndex has one."""
    return Response(answer.text, nodes_of(answer.hits), metadata_of(answer))


def metadata_of(answer: Answer) -> dict[str, Any]:
    """What a response says of an answer beside its text."""
    return {
        "answer": answer.text,
        "answered": answer.answered,
        "citations": [asdict(citation) for citation in answer.citations],
        "support": answer.support,
    }


def _in_one_context(generator: Generator[T, None, None]) -> Iterator[T]:
    """What a generator gives after its first item, which is taken now: what it opens before stands under the caller.

    LlamaIndex keeps its events and spans in context variables, and servers take each piece in another context.
    """
    taken = _taken(generator, copy_context())
    next(taken)
    return taken


def _taken(generator: Generator[T, None, None], context: Context) -> Iterator[T]:
    done = object()
    try:
        while (item := context.run(next, generator, done)) is not done:
            yield cast("T", item)
    finally:
        context.run(generator.close)  # of an answer that nobody reads to its end, or at all


async def on_threads(iterator: Iterator[T]) -> AsyncIterator[T]:
    """The items of an iterator, each waited for on a thread, so that the event loop goes on."""
    done = object()
    while True:
        item = await asyncio.to_thread(next, iterator, done)
        if item is done:
            return
        yield cast("T", item)
