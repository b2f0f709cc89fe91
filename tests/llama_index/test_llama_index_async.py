"""The event loop goes on during every asynchronous call."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from llama_index.core.schema import BaseNode, Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery

import m3rag.llama_index
from m3rag import KnowledgeBase
from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.llama_index import (
    M3Embedding,
    M3NodeParser,
    M3Rerank,
    M3Retriever,
    M3SparseEmbedding,
    M3VectorStore,
    create_chat_engine,
    create_query_engine,
    nodes,
    retriever,
    vector_store,
)
from m3rag.output import M3Output
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

BEATS = 5


class Heart:
    """Counts what an event loop gets round to; what waits for it on another thread sees that it goes on."""

    def __init__(self) -> None:
        self.waited = 0
        self.stopped = False
        self._beats = 0
        self._beaten = threading.Condition()

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            with self._beaten:
                self._beats += 1
                self._beaten.notify_all()

    def wait(self) -> None:
        if self.stopped:
            return
        with self._beaten:
            last = self._beats + BEATS
            assert self._beaten.wait_for(lambda: self._beats >= last, timeout=20), "the event loop was blocked"
            self.waited += 1


class Slow(HashEncoder):
    """Takes as long as the heart needs for some beats, whatever it is asked for."""

    def __init__(self, heart: Heart) -> None:
        super().__init__()
        self.heart = heart

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        self.heart.wait()
        return super().encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        self.heart.wait()
        return super().encode_queries(texts)

    def word_spans(self, text: str) -> Any:
        self.heart.wait()
        return super().word_spans(text)


class SlowBase(KnowledgeBase):
    """Looks for its index as slowly."""

    @property
    def exists(self) -> bool:
        self._wait()
        return super().exists

    @property
    def manifest(self) -> Any:
        self._wait()
        return super().manifest

    def _wait(self) -> None:
        if isinstance(encoder := self.loaded_encoder, Slow):
            encoder.heart.wait()


@pytest.fixture
def heart() -> Heart:
    return Heart()


@pytest.fixture
def kb(heart: Heart) -> Iterator[SlowBase]:
    heart.stopped = True
    with SlowBase(":memory:", encoder=Slow(heart), settings=Settings()) as kb:
        M3VectorStore(kb).add(NODES)
        yield kb


NODES = [TextNode(id_="a", text="Ducks swim on ponds."), TextNode(id_="b", text="Geese fly south.")]
FOUND = [NodeWithScore(node=node) for node in NODES]
ASKED = QueryBundle("Do ducks swim?")
MATCH = MetadataFilters(filters=[MetadataFilter(key="document_id", value="a", operator="text_match")])


def asked(**options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_str="ducks", similarity_top_k=2, **options)


def cached(kb: KnowledgeBase) -> CachedEncoder:
    return CachedEncoder(kb.loaded_encoder, MemoryCache())


def parser(kb: KnowledgeBase) -> M3NodeParser:
    return M3NodeParser(encoder=kb.loaded_encoder)


async def read(response: Any) -> str:
    """A streamed answer."""
    return "".join([piece async for piece in (await response).async_response_gen()])


CALLS: dict[str, Callable[[KnowledgeBase], Awaitable[object]]] = {
    "M3VectorStore.async_add": lambda kb: M3VectorStore(kb).async_add([TextNode(text="Swans glide.")]),
    "M3VectorStore.aquery": lambda kb: M3VectorStore(kb).aquery(asked()),
    "M3VectorStore.aquery hybrid": lambda kb: M3VectorStore(kb).aquery(asked(mode="hybrid", alpha=0.3)),
    "M3VectorStore.aquery mmr": lambda kb: M3VectorStore(kb).aquery(asked(mode="mmr")),
    "M3VectorStore.aquery of nodes": lambda kb: M3VectorStore(kb).aquery(asked(node_ids=["a"])),
    "M3VectorStore.aquery matching": lambda kb: M3VectorStore(kb).aquery(asked(filters=MATCH)),
    "M3VectorStore.aget_nodes": lambda kb: M3VectorStore(kb).aget_nodes(["a"]),
    "M3VectorStore.adelete": lambda kb: M3VectorStore(kb).adelete("a"),
    "M3VectorStore.adelete_nodes": lambda kb: M3VectorStore(kb).adelete_nodes(["a"]),
    "M3VectorStore.aclear": lambda kb: M3VectorStore(kb).aclear(),
    "M3Retriever.aretrieve": lambda kb: M3Retriever(kb).aretrieve("ducks"),
    "M3Retriever.aretrieve matching": lambda kb: M3Retriever(kb, filters=MATCH).aretrieve("ducks"),
    "M3QueryEngine.aquery": lambda kb: create_query_engine(kb).aquery("Do ducks swim?"),
    "M3QueryEngine.aquery streaming": lambda kb: read(create_query_engine(kb, streaming=True).aquery("Do ducks swim?")),
    "M3QueryEngine.aretrieve": lambda kb: create_query_engine(kb).aretrieve(ASKED),
    "M3QueryEngine.asynthesize": lambda kb: create_query_engine(kb).asynthesize(ASKED, FOUND),
    "M3QueryEngine.asynthesize streaming": lambda kb: read(
        create_query_engine(kb, streaming=True).asynthesize(ASKED, FOUND)
    ),
    "M3ChatEngine.achat": lambda kb: create_chat_engine(kb).achat("Do ducks swim?"),
    "M3ChatEngine.astream_chat": lambda kb: read(create_chat_engine(kb).astream_chat("Do ducks swim?")),
    "M3Rerank.apostprocess_nodes": lambda kb: M3Rerank(encoder=kb.loaded_encoder).apostprocess_nodes(
        FOUND, query_str="ducks"
    ),
    "M3NodeParser.acall": lambda kb: parser(kb).acall([Document(text="Ducks swim.")]),
    "M3NodeParser.aget_nodes_from_documents": lambda kb: parser(kb).aget_nodes_from_documents(
        [Document(text="Ducks.")]
    ),
    **{
        f"{kind.__name__}.{method}": lambda kb, kind=kind, method=method, given=given: getattr(
            kind(encoder=cached(kb)), method
        )(given)
        for kind in (M3Embedding, M3SparseEmbedding)
        for method, given in (
            ("aget_query_embedding", "swans"),
            ("aget_text_embedding", "swans"),
            ("aget_text_embedding_batch", ["swans", "storks"]),
            ("aget_agg_embedding_from_queries", ["swans", "storks"]),
        )
    },
    "M3Embedding.acall": lambda kb: M3Embedding(encoder=cached(kb)).acall([TextNode(text="Swans.")]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_heart_beats_during_every_call(kb: SlowBase, heart: Heart, name: str) -> None:
    heartbeat = asyncio.create_task(heart.beat())
    heart.stopped = False
    try:
        await CALLS[name](kb)
    finally:
        heart.stopped = True
        heartbeat.cancel()
    assert heart.waited >= 1


@pytest.mark.parametrize("name", ["M3VectorStore.aquery", "M3Retriever.aretrieve"])
async def test_the_heart_beats_while_what_was_found_becomes_nodes(
    kb: SlowBase, heart: Heart, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def slow(chunk: Chunk) -> BaseNode:
        built.wait()
        return nodes.to_node(chunk)

    built = Heart()
    monkeypatch.setattr(vector_store, "to_node", slow)
    monkeypatch.setattr(retriever, "to_scored_node", lambda hit: NodeWithScore(node=slow(hit.chunk)))
    heartbeat = asyncio.create_task(built.beat())
    await CALLS[name](kb)
    heartbeat.cancel()
    assert built.waited == len(NODES)


def test_there_is_no_other_call() -> None:
    public = {name: getattr(m3rag.llama_index, name) for name in m3rag.llama_index.__all__}
    asynchronous = {
        f"{name}.{method}"
        for name, kind in public.items()
        if inspect.isclass(kind) and name != "StoreEmbedding"  # which does nothing
        for method, function in inspect.getmembers(kind)
        if not method.startswith("_") and inspect.iscoroutinefunction(inspect.unwrap(function))
    }
    assert asynchronous == {name.partition(" ")[0] for name in CALLS}
