"""What LlamaIndex's own instrumentation, on which all tracing of it stands, sees of each stage."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.query_engine import RetrieverQueryEngine

from m3rag import KnowledgeBase
from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.llama_index import (
    M3Embedding,
    M3Rerank,
    M3Retriever,
    M3SparseEmbedding,
    create_chat_engine,
    create_query_engine,
)
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

TEXTS = {"a.pdf": "Ducks swim on ponds.", "b.txt": "Trains run on rails."}
REPLY = "Ducks swim on ponds [1]."


class Events(BaseEventHandler):
    """Keeps the events with the name of the span that they were in."""

    seen: list[BaseEvent] = []  # noqa: RUF012 - a pydantic field

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)

    def of(self, kind: str) -> list[Any]:
        """The events of a kind, each of which has a span."""
        found = [event for event in self.seen if event.class_name() == kind]
        assert all(event.span_id for event in found)
        return found


class Seen:
    """What was seen: spans by their names, and events."""

    def __init__(self) -> None:
        self.spans, self.events = SimpleSpanHandler(), Events()

    def under(self) -> set[tuple[str, str | None]]:
        """Each finished span with the one above it."""
        finished = self.spans.completed_spans + self.spans.dropped_spans
        return {(name(span.id_), name(span.parent_id)) for span in finished}


def name(span_id: str | None) -> str | None:
    return None if span_id is None else span_id.partition("-")[0]


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen, root = Seen(), get_dispatcher()
    before = root.span_handlers, root.event_handlers
    root.span_handlers, root.event_handlers = [seen.spans], [seen.events]
    yield seen
    root.span_handlers, root.event_handlers = before


@pytest.fixture(scope="module")
def kb() -> Iterator[KnowledgeBase]:
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        kb.upsert([Chunk(key, key, text, 0, len(text)) for key, text in TEXTS.items()])
        yield kb


async def answered(kb: KnowledgeBase, llm: Any, how: str) -> str:
    """The text of an answer that is asked for in some way."""
    question = "Where do ducks swim?"
    engine = create_query_engine(kb, llm, streaming="stream" in how)
    chat = create_chat_engine(kb, llm)
    response: Any
    if how in ("query", "stream query"):
        response = engine.query(question)
    elif how in ("aquery", "stream aquery"):
        response = await engine.aquery(question)
    else:
        call = getattr(chat, how)(question)
        response = await call if how.startswith("a") else call
    if how == "stream aquery":
        return "".join([piece async for piece in response.async_response_gen()])
    if how == "astream_chat":
        return "".join([piece async for piece in response.async_response_gen()])
    return "".join(response.response_gen) if how in ("stream query", "stream_chat") else str(response)


WAYS = {
    "query": "M3QueryEngine._query",
    "aquery": "M3QueryEngine._query",
    "stream query": "M3QueryEngine._query",
    "stream aquery": "M3QueryEngine._aquery",
    "chat": "M3ChatEngine.chat",
    "achat": "M3ChatEngine.chat",
    "stream_chat": "M3ChatEngine.stream_chat",
    "astream_chat": "M3ChatEngine.astream_chat",
}


@pytest.mark.parametrize("how", WAYS)
async def test_each_stage_of_an_answer_is_a_span_with_what_went_in_and_out(
    kb: KnowledgeBase, scripted: Callable[..., Any], seen: Seen, how: str
) -> None:
    assert await answered(kb, scripted(REPLY), how) == REPLY
    call = "ScriptedLLM.stream_chat" if "stream" in how else "ScriptedLLM.chat"
    stages = {("Answers.retrieve", WAYS[how]), ("Answers.synthesize", WAYS[how]), (call, "Answers.synthesize")}
    assert stages <= seen.under()
    assert seen.spans.open_spans == {}
    assert seen.spans.dropped_spans == []
    (began,), (ended,) = seen.events.of("RetrievalStartEvent"), seen.events.of("RetrievalEndEvent")
    assert began.str_or_query_bundle == "Where do ducks swim?"
    assert [node.node_id for node in ended.nodes] == ["a.pdf", "b.txt"]
    (began,), (ended,) = seen.events.of("SynthesizeStartEvent"), seen.events.of("SynthesizeEndEvent")
    assert began.query == "Where do ducks swim?"
    assert ended.response.response == REPLY
    assert name(began.span_id) == name(ended.span_id) == "Answers.synthesize"
    assert began.span_id == ended.span_id


@pytest.mark.parametrize("read", [0, 1])
def test_the_span_of_a_stream_that_is_left_ends(
    kb: KnowledgeBase, scripted: Callable[..., Any], seen: Seen, read: int
) -> None:
    response = create_query_engine(kb, scripted(REPLY), streaming=True).query("ducks?")
    assert [name(key) for key in seen.spans.open_spans] == ["Answers.synthesize"]
    for _ in range(read):
        assert copy_context().run(next, response.response_gen)
    assert seen.events.of("SynthesizeEndEvent") == []
    seen.events.seen.clear()  # the end of the query, which holds the response
    del response
    gc.collect()
    assert seen.spans.open_spans == {}
    assert seen.spans.dropped_spans == []


@pytest.mark.parametrize("streaming", [False, True])
def test_a_stage_that_fails_is_seen_to_fail(
    kb: KnowledgeBase, scripted: Callable[..., Any], seen: Seen, streaming: bool
) -> None:
    class Broken(type(scripted())):  # type: ignore[misc]
        def complete(self, *arguments: Any, **options: Any) -> Any:
            raise ConnectionError("no model")

    engine = create_query_engine(kb, Broken(replies=[]), streaming=streaming)
    with pytest.raises(ConnectionError, match="no model"):
        str(engine.query("ducks?"))
    assert "Answers.synthesize" in {name(span.id_) for span in seen.spans.dropped_spans}
    assert "Answers.retrieve" in {name(span.id_) for span in seen.spans.completed_spans}
    assert seen.spans.open_spans == {}
    assert "no model" in {event.err_str for event in seen.events.of("SpanDropEvent")}


@pytest.mark.parametrize("top_n", [None, 1])
def test_reranking_is_seen_with_what_went_in_and_out(
    kb: KnowledgeBase, scripted: Callable[..., Any], seen: Seen, top_n: int | None
) -> None:
    rerank = M3Rerank(encoder=kb.encoder, top_n=top_n)
    engine = RetrieverQueryEngine.from_args(M3Retriever(kb), node_postprocessors=[rerank], llm=scripted(REPLY))
    engine.query("Where do ducks swim?")
    assert {
        ("M3Retriever.retrieve", "RetrieverQueryEngine._query"),
        ("M3Rerank._postprocess_nodes", "RetrieverQueryEngine._query"),
    } <= seen.under()
    (began,), (ended,) = seen.events.of("ReRankStartEvent"), seen.events.of("ReRankEndEvent")
    assert (began.query.query_str, began.top_n, began.model_name) == (
        "Where do ducks swim?",
        top_n or 2,
        "ColbertReranker",
    )
    assert [node.node_id for node in began.nodes] == ["a.pdf", "b.txt"]
    assert [node.node_id for node in ended.nodes] == ["a.pdf", "b.txt"][:top_n]
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank.callback_manager = CallbackManager([handler])
    rerank.postprocess_nodes(began.nodes, query_str="ducks")
    ((start, _),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert start.payload[EventPayload.MODEL_NAME] == "ColbertReranker"


def test_embeddings_are_seen(seen: Seen) -> None:
    encoder = CachedEncoder(HashEncoder(), MemoryCache())
    vector = M3Embedding(encoder=encoder).get_query_embedding("ducks")
    weights = M3SparseEmbedding(encoder=encoder).get_query_embedding("ducks")
    (dense,), (sparse,) = seen.events.of("EmbeddingEndEvent"), seen.events.of("SparseEmbeddingEndEvent")
    assert (dense.chunks, dense.embeddings) == (["ducks"], [vector])
    assert (sparse.chunks, sparse.embeddings) == (["ducks"], [weights])
