"""OpenTelemetry, by OpenInference's instrumentation of LlamaIndex, sees each stage of our engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.query_engine import RetrieverQueryEngine

from m3rag import KnowledgeBase
from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.llama_index import M3Embedding, M3Rerank, M3Retriever, create_chat_engine, create_query_engine
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

# Of the instrumentation itself, whose handlers take a warning that is an error for a span that cannot be made.
pytestmark = pytest.mark.filterwarnings("default")

QUESTION, REPLY = "Where do ducks swim?", "Ducks swim on ponds [1]."
SECRET = "secret-of-the-index"


@pytest.fixture(scope="module")
def kb() -> Iterator[KnowledgeBase]:
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings(index_api_key=SECRET)) as kb:
        kb.upsert([Chunk("a", "a.pdf", "Ducks swim on ponds.", 0, 20), Chunk("b", "b", "Trains run on rails.", 0, 20)])
        yield kb


@pytest.fixture
def spans() -> Iterator[Any]:
    instrumentation = pytest.importorskip(
        "openinference.instrumentation.llama_index", reason="openinference-instrumentation-llama-index is not installed"
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = instrumentation.LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


async def answered(kb: KnowledgeBase, llm: Any, how: str) -> str:
    engine: Any = create_query_engine(kb, llm, streaming="stream" in how)
    if "chat" in how:
        engine = create_chat_engine(kb, llm)
        call = getattr(engine, how)(QUESTION)
    else:
        call = getattr(engine, how.removeprefix("stream "))(QUESTION)
    response = await call if how in ("aquery", "stream aquery", "achat", "astream_chat") else call
    if "stream" not in how:
        return str(response)
    if hasattr(response, "async_response_gen") and how in ("stream aquery", "astream_chat"):
        return "".join([piece async for piece in response.async_response_gen()])
    return "".join(response.response_gen)


@pytest.mark.parametrize(
    "how", ["query", "aquery", "stream query", "stream aquery", "chat", "achat", "stream_chat", "astream_chat"]
)
async def test_each_stage_is_in_one_trace(
    kb: KnowledgeBase, scripted: Callable[..., Any], spans: Any, how: str
) -> None:
    assert await answered(kb, scripted(REPLY), how) == REPLY
    finished = spans.get_finished_spans()
    assert len({span.context.trace_id for span in finished}) == 1
    assert {span.status.status_code.name for span in finished} == {"OK"}
    of = {span.name: dict(span.attributes) for span in finished}
    above = {span.context.span_id: span.name for span in finished}
    retrieved = of["Answers.retrieve"]
    assert retrieved["openinference.span.kind"] == "RETRIEVER"
    assert retrieved["input.value"] == QUESTION
    assert retrieved["retrieval.documents.0.document.content"] == "Ducks swim on ponds."
    assert of["Answers.synthesize"]["input.value"] == QUESTION
    assert of["Answers.synthesize"]["output.value"] == REPLY
    (asked,) = (span for span in finished if span.name in ("ScriptedLLM.chat", "ScriptedLLM.stream_chat"))
    assert above[asked.parent.span_id] == "Answers.synthesize"
    assert asked.attributes["openinference.span.kind"] == "LLM"
    assert "Ducks swim on ponds." in asked.attributes["llm.input_messages.1.message.content"]
    assert SECRET not in str([dict(span.attributes) for span in finished])


def test_retriever_reranker_and_embedding_are_of_their_kinds(
    kb: KnowledgeBase, scripted: Callable[..., Any], spans: Any
) -> None:
    rerank = M3Rerank(encoder=kb.encoder, top_n=1)
    RetrieverQueryEngine.from_args(M3Retriever(kb), node_postprocessors=[rerank], llm=scripted(REPLY)).query(QUESTION)
    M3Embedding(encoder=CachedEncoder(HashEncoder(), MemoryCache())).get_text_embedding_batch(["ducks", "geese"])
    of = {span.name: dict(span.attributes) for span in spans.get_finished_spans()}
    assert of["M3Retriever.retrieve"]["openinference.span.kind"] == "RETRIEVER"
    reranked = of["M3Rerank._postprocess_nodes"]
    assert reranked["openinference.span.kind"] == "RERANKER"
    assert (reranked["reranker.query"], reranked["reranker.top_k"]) == (QUESTION, 1)
    assert reranked["reranker.input_documents.1.document.id"] == "b"
    assert reranked["reranker.output_documents.0.document.id"] == "a"
    assert "reranker.output_documents.1.document.id" not in reranked
    embedded = of["M3Embedding.get_text_embedding_batch"]
    assert embedded["openinference.span.kind"] == "EMBEDDING"
    assert embedded["embedding.embeddings.1.embedding.text"] == "geese"
    assert len(embedded["embedding.embeddings.1.embedding.vector"]) == 32
