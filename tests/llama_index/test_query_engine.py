from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3rag import KnowledgeBase
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.errors import ConfigurationError, IndexMissingError, InputError
from m3rag.llama_index import create_chat_engine, create_query_engine
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

TEXTS = {
    "a.pdf": "Ducks swim on ponds. They eat water plants.",
    "b.txt": "Trains run on rails.",
    "c.txt": "Geese fly south in autumn.",
}


@pytest.fixture(scope="module")
def kb() -> Iterator[KnowledgeBase]:
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        kb.upsert(
            [Chunk(f"{key}#1", key, text, 0, len(text), metadata={"kind": key[-3:]}) for key, text in TEXTS.items()]
        )
        yield kb


def test_an_answer_has_checked_citations_and_its_sources(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    llm = scripted("Ducks swim on ponds [1]. They sing [7].")
    response = create_query_engine(kb, llm, k=2).query("Where do ducks swim?")
    assert str(response) == "Ducks swim on ponds [1]. They sing."
    (citation,) = response.metadata["citations"]
    assert (citation["number"], citation["document_id"], citation["chunk_id"]) == (1, "a.pdf", "a.pdf#1")
    assert citation["quote"] == TEXTS["a.pdf"][citation["start"] : citation["end"]] == "Ducks swim on ponds."
    assert response.metadata["answered"] is True
    assert response.source_nodes[0].node_id == "a.pdf#1"
    assert len(response.source_nodes) == 2
    assert "Ducks swim on ponds." in llm.prompts[0]
    assert "Where do ducks swim?" in llm.prompts[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_refusal_is_one(kb: KnowledgeBase, scripted: Callable[..., Any], streaming: bool) -> None:
    response = create_query_engine(kb, scripted("NOT_IN_DOCUMENTS"), streaming=streaming).query("What do foxes eat?")
    assert str(response) == NO_ANSWER_TEXT
    assert response.metadata["answered"] is False
    assert response.metadata["citations"] == []
    assert response.source_nodes


def test_a_streamed_answer_comes_in_pieces_and_is_checked_at_its_end(
    kb: KnowledgeBase, scripted: Callable[..., Any]
) -> None:
    response = create_query_engine(kb, scripted("Ducks swim on ponds [1][9]."), streaming=True).query("Where do ducks?")
    assert isinstance(response, StreamingResponse)
    assert response.metadata == {}
    assert response.source_nodes[0].node_id == "a.pdf#1"  # before the first piece
    pieces = list(response.response_gen)
    assert len(pieces) > 3
    assert "".join(pieces) == "Ducks swim on ponds [1][9]."
    assert response.metadata["answer"] == "Ducks swim on ponds [1]."
    assert [citation["number"] for citation in response.metadata["citations"]] == [1]


async def test_asynchronous_answers_are_the_same(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    text = "Ducks swim on ponds [1]."
    whole = await create_query_engine(kb, scripted(text)).aquery("Where do ducks swim?")
    assert whole == create_query_engine(kb, scripted(text)).query("Where do ducks swim?")
    streamed = await create_query_engine(kb, scripted(text), streaming=True).aquery("Where do ducks swim?")
    assert isinstance(streamed, AsyncStreamingResponse)
    assert "".join([piece async for piece in streamed.async_response_gen()]) == text
    assert streamed.metadata == whole.metadata


def test_pieces_may_be_taken_in_other_contexts_as_servers_do(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    response = create_query_engine(kb, scripted("Ducks swim on ponds [1]."), streaming=True).query("ducks?")
    pieces: list[str] = []
    while (piece := copy_context().run(next, response.response_gen, None)) is not None:
        pieces.append(piece)
    assert "".join(pieces) == "Ducks swim on ponds [1]."
    assert response.metadata["answered"] is True


async def test_the_event_loop_goes_on_while_the_model_writes(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    beat = threading.Event()

    class Slow(type(scripted())):  # type: ignore[misc]
        def complete(self, *arguments: Any, **options: Any) -> Any:
            assert beat.wait(10), "the event loop was blocked"
            return super().complete(*arguments, **options)

    async def streamed() -> None:
        engine = create_query_engine(kb, Slow(replies=["Ducks [1]."]), streaming=True)
        response = await engine.aquery("ducks")
        assert [piece async for piece in response.async_response_gen()]

    whole = create_query_engine(kb, Slow(replies=["Ducks [1]."])).aquery("ducks")
    for call in (whole, streamed()):
        beat.clear()
        task = asyncio.create_task(call)
        await asyncio.sleep(0.02)
        beat.set()
        await task


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("quoted", [False, True])
async def test_its_two_stages_may_be_called_one_by_one(
    kb: KnowledgeBase, scripted: Callable[..., Any], streaming: bool, quoted: bool
) -> None:
    llm = None if quoted else scripted("Trains run on rails [1]. They sing [7].")
    engine, question = create_query_engine(kb, llm, streaming=streaming, k=2), QueryBundle("Do trains run on rails?")
    nodes = engine.retrieve(question)
    assert [node.node_id for node in nodes][:1] == ["b.txt#1"]
    assert await engine.aretrieve(question) == nodes
    more = NodeWithScore(node=TextNode(id_="more", text="Seen elsewhere."))
    for whole, response in (
        (engine.query(question), engine.synthesize(question, nodes, [more])),
        (await engine.aquery(question), await engine.asynthesize(question, nodes, [more])),
    ):
        assert type(response) is type(whole)
        assert response.source_nodes == [*nodes, more]
        assert await _read(response) == await _read(whole)
        assert response.metadata == whole.metadata
        assert response.metadata["citations"][0]["chunk_id"] == "b.txt#1"


async def _read(response: Any) -> str:
    if isinstance(response, AsyncStreamingResponse):
        return "".join([piece async for piece in response.async_response_gen()])
    return str(response)


def test_a_language_model_answers_from_nodes_of_any_origin(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    related = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="cats.pdf")}
    node = TextNode(
        id_="x",
        text="Cats climb trees.",
        metadata={"page_label": "7", "headings": ["Cats"], "odd": object()},
        start_char_idx=30,
        end_char_idx=47,
        relationships=related,
    )
    llm, question = scripted("Cats climb trees [1]."), QueryBundle("What do cats climb?")
    response = create_query_engine(kb, llm).synthesize(question, [NodeWithScore(node=node)])
    assert response.source_nodes[0].node is node
    (citation,) = response.metadata["citations"]
    assert (citation["document_id"], citation["start"], citation["end"]) == ("cats.pdf", 30, 47)
    assert 'document="cats.pdf" page=7 section="Cats"' in llm.prompts[0]
    assert create_query_engine(kb, llm).synthesize(question, []).metadata["answered"] is False
    with pytest.raises(InputError, match=r"node 'x' is not in the index.*or make it with an llm"):
        create_query_engine(kb).synthesize(question, [NodeWithScore(node=node)])


def test_what_is_quoted_is_what_the_index_holds(kb: KnowledgeBase) -> None:
    engine, question = create_query_engine(kb), QueryBundle("Do trains run on rails?")
    nodes = engine.retrieve(question)
    nodes[0].node.set_content("Trains, much shortened.")
    assert str(engine.synthesize(question, nodes)) == "Trains run on rails. [1]"


def test_without_a_language_model_the_answer_is_quoted(kb: KnowledgeBase) -> None:
    response = create_query_engine(kb).query("Do trains run on rails?")
    assert str(response) == "Trains run on rails. [1]"
    assert response.metadata["citations"][0]["document_id"] == "b.txt"
    assert response.metadata["support"] > 0


@pytest.mark.parametrize("llm", [True, False])
@pytest.mark.parametrize(
    "filters",
    [
        {"kind": "txt"},
        MetadataFilters(filters=[MetadataFilter(key="kind", value="txt")]),
        MetadataFilters(filters=[MetadataFilter(key="kind", value="TX", operator="text_match_insensitive")]),
    ],
)
def test_options_of_the_search_count(kb: KnowledgeBase, scripted: Callable[..., Any], filters: Any, llm: bool) -> None:
    engine = create_query_engine(kb, scripted("It is so [1].") if llm else None, filters=filters, k=5, mode="dense")
    nodes = engine.retrieve(QueryBundle("ducks swim on ponds"))
    assert sorted(node.node_id for node in nodes) == ["b.txt#1", "c.txt#1"]
    assert nodes[0].metadata["scores"]["lexical"] is None
    assert {node.metadata["document_id"] for node in engine.query("ducks swim?").source_nodes} <= {"b.txt", "c.txt"}


@pytest.mark.parametrize("llm", [True, False])
def test_the_strings_of_a_transformed_query_are_searched_for(
    kb: KnowledgeBase, scripted: Callable[..., Any], llm: bool
) -> None:
    model = scripted("South [1].") if llm else None
    asked = QueryBundle("Where to?", custom_embedding_strs=["Geese fly south in autumn."])
    engine = create_query_engine(kb, model, k=1)
    streaming = create_query_engine(kb, model, k=1, streaming=True)
    found = [engine.retrieve(asked)]
    found += [response.source_nodes for response in (engine.query(asked), asyncio.run(engine.aquery(asked)))]
    found += [response.source_nodes for response in (streaming.query(asked), asyncio.run(streaming.aquery(asked)))]
    assert [[node.node_id for node in nodes] for nodes in found] == [["c.txt#1"]] * 5
    if model is not None:
        assert "Where to?" in model.prompts[0]
        assert model.prompts[0].count("Geese fly south") == 1  # the passage: the strings are for the search alone


def test_stages_are_seen(kb: KnowledgeBase) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    engine = create_query_engine(kb, MockLLM(), callback_manager=CallbackManager([handler]))
    engine.query("ducks")
    for stage in (CBEventType.QUERY, CBEventType.RETRIEVE, CBEventType.SYNTHESIZE):
        assert len(handler.get_event_pairs(stage)) == 1


def test_it_serves_as_a_tool(kb: KnowledgeBase) -> None:
    tool = QueryEngineTool.from_defaults(create_query_engine(kb), name="papers", description="Searches papers.")
    assert tool("Do trains run on rails?").content == "Trains run on rails. [1]"


def test_a_stream_that_is_left_ends_its_stage_where_it_began(kb: KnowledgeBase, scripted: Callable[..., Any]) -> None:
    place = ContextVar("place", default="elsewhere")
    ended: list[tuple[Any, str]] = []

    class Handler(LlamaDebugHandler):
        def on_event_end(self, event_type: Any, *arguments: Any, **options: Any) -> None:
            ended.append((event_type, place.get()))

    callbacks = CallbackManager([Handler(print_trace_on_end=False)])
    place.set("here")
    llm = scripted("Ducks swim on ponds [1].")
    response = create_query_engine(kb, llm, streaming=True, callback_manager=callbacks).query("ducks?")
    assert next(response.response_gen)
    Context().run(response.response_gen.close)  # LlamaIndex's own stack of events would be another one there
    assert ended[-1] == (CBEventType.SYNTHESIZE, "here")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"similarity_top_k": 3}, "unknown option similarity_top_k: an engine takes .*filters.* k,"),
        ({"filter": {"kind": "txt"}}, "unknown option filter: an engine takes .*filters"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": "3"}, "k must be a whole number, got '3'"),
        ({"score_threshold": "high"}, "score_threshold must be a number, got 'high'"),
        ({"mode": "best"}, "unknown mode 'best': choose one of dense, "),
        ({"mode": "dense", "alpha": 0.5}, "alpha weighs a dense against a keyword leg, which mode 'dense' does not"),
    ],
)
def test_an_option_that_is_none_is_named_when_an_engine_is_made(
    kb: KnowledgeBase, options: dict[str, Any], said: str
) -> None:
    for create in (create_query_engine, create_chat_engine):
        with pytest.raises((InputError, ConfigurationError), match=said):
            create(kb, **options)


@pytest.mark.parametrize("llm", [True, False])
def test_without_an_index_a_question_says_so(scripted: Callable[..., Any], llm: bool) -> None:
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        engine = create_query_engine(kb, scripted("Yes [1].") if llm else None)
        with pytest.raises(IndexMissingError, match="ingest or upsert first"):
            engine.query("Do ducks swim?")


def test_what_cannot_be_used_is_named(kb: KnowledgeBase) -> None:
    with pytest.raises(InputError, match=r"knowledge_base is 'my-index', must be an m3rag\.KnowledgeBase"):
        create_query_engine("my-index")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="llm is a str, must be an LLM of LlamaIndex's"):
        create_query_engine(kb, "gpt")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="filters is a list"):
        create_query_engine(kb, filters=[])
