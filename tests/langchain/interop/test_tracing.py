"""LangSmith and OpenTelemetry see each stage of the chain, and no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable

from m3rag import KnowledgeBase
from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.langchain import M3Embeddings, M3Reranker, M3Retriever, M3VectorStore, create_rag_chain
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMRequest, LLMServer
from m3rag.types import Chunk

SECRETS = ("secret-of-the-index", "secret-of-the-model", "secret-of-langsmith")
INDEX_SECRET, MODEL_SECRET, LANGSMITH_SECRET = SECRETS
BATCHES = {
    "use_multipart_endpoint": False,
    "size_limit": 100,
    "size_limit_bytes": 20_000_000,
    "scale_up_nthreads_limit": 1,
    "scale_up_qsize_trigger": 1_000,
}
"""What a LangSmith server would tell its client: batches as plain JSON."""

ASKED = {"question": "And where?", "chat_history": [HumanMessage("Ducks?"), AIMessage("Birds.")]}
FOUND, REPLY = "Where do ducks swim?", "Ducks swim on ponds [1]."


@pytest.fixture(scope="module")
def kb() -> Iterator[KnowledgeBase]:
    settings = Settings(index_api_key=INDEX_SECRET)
    with KnowledgeBase(":memory:", encoder=CachedEncoder(HashEncoder(), MemoryCache()), settings=settings) as kb:
        kb.upsert([Chunk("a", "a.pdf", "Ducks swim on ponds.", 0, 20), Chunk("b", "b", "Trains run on rails.", 0, 20)])
        yield kb


@contextmanager
def chain(kb: KnowledgeBase) -> Iterator[Runnable[Any, Any]]:
    """The whole chain over a model that is asked by HTTP."""
    openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

    def script(request: LLMRequest) -> str:
        return FOUND if '"conversation"' in request.prompt else REPLY

    with LLMServer(script) as server:
        model = openai.ChatOpenAI(model="any", base_url=server.base_url, api_key=MODEL_SECRET, max_retries=0)
        rerank = M3Reranker(encoder=kb.encoder, top_n=1)
        yield create_rag_chain(model, M3Retriever(knowledge_base=kb), reranker=rerank)


async def asked(chain: Runnable[Any, Any], how: str, **config: Any) -> str:
    """The answer of a chain that is called in some way."""
    if how == "invoke":
        return str(chain.invoke(ASKED, config)["answer"])
    if how == "ainvoke":
        return str((await chain.ainvoke(ASKED, config))["answer"])
    if how == "stream":
        return "".join(part.get("answer", "") for part in chain.stream(ASKED, config))
    return "".join([part.get("answer", "") async for part in chain.astream(ASKED, config)])


@dataclass
class LangSmith:
    """A loopback server that takes LangSmith's batches of runs."""

    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def runs(self) -> dict[str, dict[str, Any]]:
        """All runs by their ids, with what came of them at their start and at their end."""
        runs: dict[str, dict[str, Any]] = {}
        for body in self.bodies:
            batch = json.loads(body)
            for run in [*batch.get("post", []), *batch.get("patch", [])]:
                known = {key: value for key, value in run.items() if value is not None}
                runs[run["id"]] = {**runs.get(run["id"], {}), **known}
        return runs


@pytest.fixture
def langsmith() -> Iterator[LangSmith]:
    kept = LangSmith()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(202)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        kept.url = f"http://127.0.0.1:{server.server_port}"
        yield kept
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_langsmith_is_sent_each_stage_under_the_chain(kb: KnowledgeBase, langsmith: LangSmith, how: str) -> None:
    smith = pytest.importorskip("langsmith")
    client = smith.Client(
        langsmith.url,
        api_key=LANGSMITH_SECRET,
        info={"batch_ingest_config": BATCHES},
    )
    with chain(kb) as made, smith.tracing_context(enabled=True, client=client):
        assert await asked(made, how, tags=["asked"], metadata={"user": "u1"}) == REPLY
    client.flush(timeout=60)
    client.close()
    runs = langsmith.runs()

    def line(run: dict[str, Any]) -> list[str]:
        """The names of a run and of those above it."""
        above = runs.get(run.get("parent_run_id", ""))
        return [run["name"], *(line(above) if above else [])]

    def named(name: str) -> dict[str, Any]:
        (run,) = (run for run in runs.values() if run["name"] == name)
        return run

    root = named("rag")
    assert {tuple(line(run))[-1] for run in runs.values()} == {"rag"}
    assert root["tags"] == ["asked"]
    assert all(run["extra"]["metadata"]["user"] == "u1" for run in runs.values())
    assert not any(run.get("error") for run in runs.values())
    retrieved, reranked = named("retrieve"), named("rerank")
    assert retrieved["run_type"] == "retriever"
    assert retrieved["inputs"] == {"query": FOUND}
    assert [document["id"] for document in retrieved["outputs"]["documents"]] == ["a", "b"]
    assert [document["id"] for document in reranked["outputs"]["output"]] == ["a"]
    assert [document["id"] for document in reranked["inputs"]["sources"]] == ["a", "b"]
    models = [run for run in runs.values() if run["run_type"] == "llm"]
    assert [line(run)[1:] for run in models] == [["condense", "rag"], ["answer", "rag"]]
    assert [run["outputs"]["generations"][0][0]["text"] for run in models] == [FOUND, REPLY]
    assert named("answer")["outputs"]["answered"] is True
    assert not [secret for secret in SECRETS if any(secret.encode() in body for body in langsmith.bodies)]


@pytest.fixture
def spans() -> Iterator[Any]:
    """What OpenInference's instrumentation of LangChain exports."""
    instrumentation = pytest.importorskip(
        "openinference.instrumentation.langchain", reason="openinference-instrumentation-langchain is not installed"
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = instrumentation.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_opentelemetry_sees_each_stage_in_one_trace(kb: KnowledgeBase, spans: Any, how: str) -> None:
    with chain(kb) as made:
        assert await asked(made, how) == REPLY
    finished = spans.get_finished_spans()
    assert len({span.context.trace_id for span in finished}) == 1
    assert {span.status.status_code.name for span in finished} == {"OK"}
    of = {span.name: dict(span.attributes) for span in finished}
    above = {span.context.span_id: span.name for span in finished}
    assert of["rag"]["openinference.span.kind"] == "CHAIN"
    assert of["retrieve"]["openinference.span.kind"] == "RETRIEVER"
    assert of["retrieve"]["input.value"] == FOUND
    assert of["retrieve"]["retrieval.documents.0.document.content"] == "Ducks swim on ponds."
    assert [document["id"] for document in json.loads(of["rerank"]["output.value"])] == ["a"]
    models = [span for span in finished if span.attributes["openinference.span.kind"] == "LLM"]
    assert [above[span.parent.span_id] for span in models] == ["condense", "answer"]
    assert models[-1].attributes["llm.output_messages.0.message.content"] == REPLY
    assert not [secret for secret in SECRETS if secret in str([dict(span.attributes) for span in finished])]


def test_a_retriever_of_the_vector_store_names_store_and_embeddings(spans: Any) -> None:
    with M3VectorStore(M3Embeddings(encoder=CachedEncoder(HashEncoder(), MemoryCache()))) as store:
        store.add_texts(["Ducks swim."], ids=["a"])
        store.as_retriever(search_type="mmr").invoke("ducks")
    (span,) = spans.get_finished_spans()
    assert span.attributes["openinference.span.kind"] == "RETRIEVER"
    told = json.loads(span.attributes["metadata"])
    assert (told["ls_vector_store_provider"], told["ls_embedding_provider"]) == ("M3VectorStore", "M3Embeddings")
    assert span.attributes["retrieval.documents.0.document.content"] == "Ducks swim."
