"""A query engine whose answers have checked citations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE, AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3rag.llama_index.answers import Answers, metadata_of, nodes_of, on_threads, response_of
from m3rag.llama_index.llm import LlamaIndexLLM
from m3rag.types import Answer

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from m3rag.knowledge_base import KnowledgeBase


def create_query_engine(
    knowledge_base: KnowledgeBase,
    llm: LLM | None = None,
    *,
    streaming: bool = False,
    callback_manager: CallbackManager | None = None,
    **options: Any,
) -> M3QueryEngine:
    """A query engine over a knowledge base, with checked citations.

    Example:
        ```python
        engine = create_query_engine(KnowledgeBase("my-index"), llm, k=6)
        response = engine.query("Who proved it first?")
        print(response, response.metadata["citations"])
        ```

    Args:
        knowledge_base: What is asked.
        llm: Any LLM of LlamaIndex's. None for what the knowledge base answers by itself: the language model of
            its settings, else sentences quoted from the documents.
        streaming: Whether `query` and `aquery` give the text as it is written.
        callback_manager: Told of each stage.
        **options: Of the search, see `m3rag.retrieval.SearchOptions`; `k` is by default the setting
            `answer_passages`, and `filters` are LlamaIndex's MetadataFilters or a dict.

    Raises:
        InputError: If an argument cannot be used.
    """
    model = None if llm is None else LlamaIndexLLM(llm)
    callbacks = callback_manager or CallbackManager([])
    return M3QueryEngine(Answers(knowledge_base, model, options, callbacks), streaming=streaming)


class M3QueryEngine(BaseQueryEngine):
    """Answers from the passages of a knowledge base; made by `create_query_engine`.

    A response's `source_nodes` are the passages that were considered, best first, and its `metadata` have
    `citations` (of each number in the text the `document_id`, `page`, `start`, `end`, `quote` and `chunk_id`, which is
    a source node's id), `answered` (False where the documents do not answer: the text then says so), `support`
    and `answer`. A streamed response gives the text as the model writes it, and has these when it has been read
    to its end: `answer` is then the text with its marks checked.
    """

    def __init__(self, answers: Answers, *, streaming: bool = False) -> None:
        super().__init__(answers.callback_manager)
        self._answers = answers
        self._streaming = streaming

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The passages that an answer would be made from."""
        return nodes_of(self._answers.retrieve(query_bundle.query_str))

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        with self._told(question) as event:
            response = self._response(question)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _response(self, question: str) -> RESPONSE_TYPE:
        hits = self._answers.retrieve(question)
        if not self._streaming:
            return response_of(self._answers.synthesize(question, hits))
        metadata: dict[str, Any] = {}
        return StreamingResponse(
            _pieces(self._answers.stream(question, hits), metadata),  # type: ignore[arg-type]
            nodes_of(hits),
            metadata,
        )

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        if not self._streaming:
            return await asyncio.to_thread(self._query, query_bundle)
        with self._told(question) as event:
            hits = await asyncio.to_thread(self._answers.retrieve, question)
            metadata: dict[str, Any] = {}
            pieces = on_threads(_pieces(self._answers.stream(question, hits), metadata))
            response = AsyncStreamingResponse(_generator(pieces), nodes_of(hits), metadata)  # type: ignore[arg-type]
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _told(self, question: str) -> Any:
        return self.callback_manager.event(CBEventType.QUERY, payload={EventPayload.QUERY_STR: question})

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}


def _pieces(events: Iterator[str | Answer], metadata: dict[str, Any]) -> Iterator[str]:
    for event in events:
        if isinstance(event, Answer):
            metadata.update(metadata_of(event))
        else:
            yield event


async def _generator(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    async for piece in pieces:
        yield piece
