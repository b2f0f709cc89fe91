"""The event loop goes on during every asynchronous call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel

from m3rag.collection import Collection
from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.langchain import (
    M3DocumentIndex,
    M3Embeddings,
    M3Reranker,
    M3Retriever,
    M3SparseEmbeddings,
    M3TextSplitter,
    M3VectorStore,
    create_rag_chain,
    document_index,
    searching,
    vector_store,
)
from m3rag.output import M3Output
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit

BEATS = 5
SCORED = "to_document_with_scores"


class Heart:
    """Counts what an event loop gets round to; what waits for it on another thread sees that it goes on."""

    def __init__(self) -> None:
        self.waited = 0
        self._beats = 0
        self._beaten = threading.Condition()

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            with self._beaten:
                self._beats += 1
                self._beaten.notify_all()

    def wait(self) -> None:
        with self._beaten:
            last = self._beats + BEATS
            assert self._beaten.wait_for(lambda: self._beats >= last, timeout=20), "the event loop was blocked"
            self.waited += 1


def waiting(heart: Heart, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which waits for some beats first."""

    def call(*arguments: Any) -> Any:
        heart.wait()
        return function(*arguments)

    return call


class SlowEncoder(HashEncoder):
    """Takes as long as the heart needs for some beats."""

    heart: Heart | None = None

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        if self.heart is not None:
            self.heart.wait()
        return super().encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        if self.heart is not None:
            self.heart.wait()
        return super().encode_queries(texts)


class SlowCollection(Collection):
    """Reads and removes as slowly as `SlowEncoder` encodes."""

    heart: Heart | None = None

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        self._wait()
        return super().get(chunk_ids)

    def delete(self, *args: Any, **options: Any) -> int:
        self._wait()
        return super().delete(*args, **options)

    def search(self, query: str, **options: Any) -> list[Hit]:
        self._wait()
        return super().search(query, **options)

    @property
    def exists(self) -> bool:
        self._wait()
        return super().exists

    def _wait(self) -> None:
        if self.heart is not None:
            self.heart.wait()


@pytest.fixture
def collection() -> Iterator[SlowCollection]:
    with SlowCollection(":memory:", encoder=SlowEncoder(), settings=Settings()) as collection:
        M3VectorStore(collection=collection).add_texts(["Ducks swim.", "Geese fly."], ids=["a", "b"])
        yield collection


VECTOR = HashEncoder().encode_queries(["ducks"]).dense[0].tolist()
DOCUMENT = Document(id="c", page_content="Swans glide.")

STORE_CALLS: dict[str, Callable[[M3VectorStore], Awaitable[object]]] = {
    "aadd_texts": lambda store: store.aadd_texts(["Swans glide."]),
    "aadd_documents": lambda store: store.aadd_documents([DOCUMENT]),
    "adelete": lambda store: store.adelete(["a"]),
    "adelete all": lambda store: store.adelete(),
    "aget_by_ids": lambda store: store.aget_by_ids(["a"]),
    "asearch": lambda store: store.asearch("ducks", "similarity"),
    "asimilarity_search": lambda store: store.asimilarity_search("ducks"),
    "with_score": lambda store: store.asimilarity_search_with_score("ducks"),
    "with_relevance_scores": lambda store: store.asimilarity_search_with_relevance_scores("ducks"),
    "by_vector": lambda store: store.asimilarity_search_by_vector(VECTOR),
    "mmr": lambda store: store.amax_marginal_relevance_search("ducks", k=1),
    "mmr lexical": lambda store: store.amax_marginal_relevance_search("ducks", k=1, mode="lexical"),
    "mmr by vector": lambda store: store.amax_marginal_relevance_search_by_vector(VECTOR, k=1),
    "retriever": lambda store: store.as_retriever().ainvoke("ducks"),
    "afrom_texts": lambda store: M3VectorStore.afrom_texts(["Swans."], None, collection=store.collection),  # type: ignore[arg-type]
    "embeddings": lambda store: store.embeddings.aembed_query("ducks"),
}

INDEX_CALLS: dict[str, Callable[[M3DocumentIndex], Awaitable[object]]] = {
    "aupsert": lambda index: index.aupsert([DOCUMENT]),
    "adelete": lambda index: index.adelete(["a"]),
    "aget": lambda index: index.aget(["a"]),
    "ainvoke": lambda index: index.ainvoke("ducks"),
}


async def beating(collection: SlowCollection, call: Callable[[], Awaitable[object]]) -> Heart:
    heart = Heart()
    heartbeat = asyncio.create_task(heart.beat())
    encoder = collection.encoder
    assert isinstance(encoder, SlowEncoder)
    collection.heart = encoder.heart = heart
    try:
        await call()
    finally:
        collection.heart = encoder.heart = None
        heartbeat.cancel()
    return heart


@pytest.mark.parametrize("name", STORE_CALLS)
async def test_the_heart_beats_during_every_call_of_the_store(collection: SlowCollection, name: str) -> None:
    store = M3VectorStore(collection=collection)
    heart = await beating(collection, lambda: STORE_CALLS[name](store))
    assert heart.waited >= 1


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize(
    "name", ["asimilarity_search", "with_score", "with_relevance_scores", "mmr", "retriever", "ainvoke"]
)
async def test_the_heart_beats_while_what_was_found_becomes_documents(
    collection: SlowCollection, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    heart = Heart()
    for module, function in ((vector_store, "to_document"), (searching, "to_document"), (document_index, SCORED)):
        monkeypatch.setattr(module, function, waiting(heart, getattr(module, function)))
    heartbeat = asyncio.create_task(heart.beat())
    if name in INDEX_CALLS:
        await INDEX_CALLS[name](M3DocumentIndex(collection=collection))
    else:
        await STORE_CALLS[name](M3VectorStore(collection=collection))
    heartbeat.cancel()
    assert heart.waited >= 1


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize("name", INDEX_CALLS)
async def test_the_heart_beats_during_every_call_of_the_index(collection: SlowCollection, name: str) -> None:
    index = M3DocumentIndex(collection=collection)
    heart = await beating(collection, lambda: INDEX_CALLS[name](index))
    assert heart.waited >= 1


@pytest.mark.parametrize("options", [{}, {"explain": True}, {"widen": True}, {"mode": "bm25"}])
@pytest.mark.parametrize("how", ["ainvoke", "abatch", "astream"])
async def test_the_heart_beats_during_every_call_of_the_retriever(
    collection: SlowCollection, how: str, options: dict[str, Any]
) -> None:
    retriever = M3Retriever(knowledge_base=collection, **options)

    async def call() -> object:
        if how == "astream":
            return [part async for part in retriever.astream("ducks")]
        return await (retriever.ainvoke("ducks") if how == "ainvoke" else retriever.abatch(["ducks", "geese"]))

    heart = await beating(collection, call)
    assert heart.waited >= (0 if options.get("mode") == "bm25" else 1)


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_the_heart_beats_while_the_chain_counts_tokens_reranks_and_looks_pages_up(
    collection: SlowCollection, how: str
) -> None:
    def count_tokens(text: str) -> int:
        collection._wait()
        return len(text.split())

    def page_of(document_id: str, position: int) -> int:
        collection._wait()
        return 7

    chain = create_rag_chain(
        FakeListChatModel(responses=["Ducks swim [1]."]),
        M3Retriever(knowledge_base=collection, k=2),
        reranker=M3Reranker(encoder=collection.encoder, top_n=1),
        max_context_tokens=100,
        count_tokens=count_tokens,
        page_of=page_of,
    )
    output: dict[str, Any] = {}

    async def call() -> None:
        if how == "ainvoke":
            output.update(await chain.ainvoke("Do ducks swim?"))
        else:
            async for part in chain.astream("Do ducks swim?"):
                output.update(part)

    heart = await beating(collection, call)
    assert output["citations"][0]["extras"]["page"] == 7
    assert heart.waited >= 4  # a question, passages to rerank, tokens, a page


async def test_the_heart_beats_during_the_calls_of_what_only_encodes(collection: SlowCollection) -> None:
    encoder = collection.encoder
    cached = CachedEncoder(encoder, MemoryCache())
    documents = [Document(page_content="Ducks swim."), Document(page_content="Geese fly.")]
    splitter = M3TextSplitter(encoder=encoder, strategy="semantic", chunk_tokens=16, overlap_tokens=0)
    text = Document(page_content="Ducks swim on ponds. Geese fly south. " * 9)
    for call in (
        lambda: M3Embeddings(encoder=cached).aembed_documents(["swans"]),
        lambda: M3Embeddings(encoder=cached).aembed_query("swans"),
        lambda: M3SparseEmbeddings(encoder=cached).aembed_documents(["storks"]),
        lambda: M3SparseEmbeddings(encoder=cached).aembed_query("storks"),
        lambda: M3Reranker(encoder=encoder).acompress_documents(documents, "ducks"),
        lambda: splitter.atransform_documents([text]),
    ):
        assert (await beating(collection, call)).waited >= 1


async def test_asynchronous_results_are_the_same(collection: SlowCollection) -> None:
    store = M3VectorStore(collection=collection)
    assert await store.asimilarity_search("ducks") == store.similarity_search("ducks")
    assert await store.asimilarity_search_with_score("ducks") == store.similarity_search_with_score("ducks")
    assert await store.asimilarity_search_with_relevance_scores(
        "ducks", score_threshold=0.1
    ) == store.similarity_search_with_relevance_scores("ducks", score_threshold=0.1)
    assert await store.amax_marginal_relevance_search("ducks", k=2) == store.max_marginal_relevance_search("ducks", k=2)
    assert await store.asimilarity_search("ducks", k=1, mode="dense") == store.similarity_search(
        "ducks", k=1, mode="dense"
    )
    many = await asyncio.gather(*(store.asimilarity_search(f"ducks {i}", k=2) for i in range(16)))
    assert many == [store.similarity_search(f"ducks {i}", k=2) for i in range(16)]
