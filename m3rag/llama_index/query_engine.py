"""A query engine whose answers have checked citations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE, AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3rag.llama_index.answers import Answers, metadata_of, nodes_of, on_threads
from m3rag.llama_index.llm import LlamaIndexLLM
from m3rag.types import Answer

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.types import Hit


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
        ConfigurationError: If mode, weights or fusion are unknown, or do not go together.
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

    Where a query bundle brings its own strings to embed (HyDE does), these are searched for together, and the question
    is answered. Its stages may be called one by one: `synthesize` takes what `retrieve` gave, or nodes of another
    origin. Where there is no index, a question raises IndexMissingError, as `KnowledgeBase.ask` does.
    """

    def __init__(self, answers: Answers, *, streaming: bool = False) -> None:
        super().__init__(answers.callback_manager)
        self._answers = answers
        self._streaming = streaming

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The passages that an answer would be made from."""
        return nodes_of(self._answers.retrieve(query_bundle.query_str, query_bundle.custom_embedding_strs))

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """As `retrieve`, on a thread."""
        return await asyncio.to_thread(self.retrieve, query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """An answer from nodes, whoever found them.

        Args:
            query_bundle: The question.
            nodes: What `retrieve` gave, or any other nodes, best first. Without a language model they must be of this
                index, and what it holds is quoted, whatever was done to their text.
            additional_source_nodes: Added to the response's source nodes, and to nothing else.

        Raises:
            InputError: If the question is blank, or a node is not of this index and there is no language model.
        """
        sources = [*nodes, *(additional_source_nodes or ())]
        return self._response(query_bundle.query_str, self._answers.passages(nodes), sources)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """As `synthesize`, on a thread."""
        if not self._streaming:
            return await asyncio.to_thread(self.synthesize, query_bundle, nodes, additional_source_nodes)
        hits = await asyncio.to_thread(self._answers.passages, nodes)
        return self._astreamed(query_bundle.query_str, hits, [*nodes, *(additional_source_nodes or ())])

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        with self._told(question) as event:
            hits = self._answers.retrieve(question, query_bundle.custom_embedding_strs)
            response = self._response(question, hits, nodes_of(hits))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _response(self, question: str, hits: list[Hit], sources: list[NodeWithScore]) -> RESPONSE_TYPE:
        if not self._streaming:
            answer = self._answers.synthesize(question, hits)
            return Response(answer.text, sources, metadata_of(answer))
        metadata: dict[str, Any] = {}
        pieces = _pieces(self._answers.stream(question, hits), metadata)
        return StreamingResponse(pieces, sources, metadata)  # type: ignore[arg-type]

    def _astreamed(self, question: str, hits: list[Hit], sources: list[NodeWithScore]) -> AsyncStreamingResponse:
        metadata: dict[str, Any] = {}
        pieces = on_threads(_pieces(self._answers.stream(question, hits), metadata))
        return AsyncStreamingResponse(_generator(pieces), sources, metadata)  # type: ignore[arg-type]

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        if not self._streaming:
            return await asyncio.to_thread(self._query, query_bundle)
        with self._told(question) as event:
            hits = await asyncio.to_thread(self._answers.retrieve, question, query_bundle.custom_embedding_strs)
            response = self._astreamed(question, hits, nodes_of(hits))
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
