from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.structured_query import StructuredQuery, Visitor

from m3rag import KnowledgeBase
from m3rag.collection import Collection
from m3rag.langchain import M3CrossEncoder, M3Reranker, M3Retriever, M3TextSplitter, M3VectorStore
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic is not installed")

FILES = {
    "ducks.txt": "Ducks swim on ponds and eat water plants.",
    "trains.txt": "Trains run on rails between the cities.",
    "boats.txt": "Boats swim on the water too, but they eat nothing.",
}
QUERY = "what do ducks eat on the water"


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    with KnowledgeBase(tmp_path_factory.mktemp("kb") / "index", encoder=HashEncoder(), settings=Settings()) as opened:
        opened.ingest(folder)
        yield opened


def sources(documents: list[Document]) -> list[str]:
    return [document.metadata["source"] for document in documents]


async def test_contextual_compression_reranks_what_the_retriever_found(knowledge_base: KnowledgeBase) -> None:
    reranker = M3Reranker(encoder=knowledge_base.encoder, top_n=2)
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=reranker, base_retriever=M3Retriever(knowledge_base=knowledge_base, mode="dense", k=3)
    )
    found = retriever.invoke(QUERY)
    assert sources(found) == ["ducks.txt", "boats.txt"]
    colbert = knowledge_base.search(QUERY, mode="colbert", k=2)
    assert [d.metadata["relevance_score"] for d in found] == pytest.approx([h.score for h in colbert], abs=1e-3)
    assert await retriever.ainvoke(QUERY) == found


def test_the_cross_encoder_serves_classics_own_reranker(knowledge_base: KnowledgeBase) -> None:
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
    given = [Document(page_content=text, metadata={"source": name}) for name, text in FILES.items()]
    model = M3CrossEncoder(encoder=knowledge_base.encoder)
    found = compressors.CrossEncoderReranker(model=model, top_n=2).compress_documents(given, QUERY)
    assert sources(found) == ["ducks.txt", "boats.txt"]


async def test_an_ensemble_joins_two_modes_and_keeps_metadata(knowledge_base: KnowledgeBase) -> None:
    ensemble = retrievers.EnsembleRetriever(
        retrievers=[M3Retriever(knowledge_base=knowledge_base, mode=mode, k=2) for mode in ("dense", "lexical")],
        weights=[0.5, 0.5],
        id_key="document_id",
    )
    found = ensemble.invoke(QUERY)
    assert sorted(sources(found)) == ["boats.txt", "ducks.txt"]
    for document in found:
        of = document.metadata
        assert FILES[of["source"]][of["start"] : of["end"]] == document.page_content
    fused: Counter[str] = Counter()
    for mode in ("dense", "lexical"):
        for rank, hit in enumerate(knowledge_base.search(QUERY, mode=mode, k=2), start=1):
            fused[hit.chunk.document_id] += 0.5 / (60 + rank)
    scores = [fused[source] for source in sources(found)]
    assert scores == sorted(scores, reverse=True)
    assert sources(await ensemble.ainvoke(QUERY)) == sources(found)


async def test_small_chunks_are_found_and_their_parents_given() -> None:
    stores = pytest.importorskip("langchain_classic.storage")
    encoder = HashEncoder()
    retriever = retrievers.ParentDocumentRetriever(
        vectorstore=M3VectorStore(collection=Collection(":memory:", encoder=encoder)),
        docstore=stores.InMemoryStore(),
        child_splitter=M3TextSplitter(encoder=encoder, chunk_tokens=16, overlap_tokens=0),
        parent_splitter=M3TextSplitter(encoder=encoder, chunk_tokens=64, overlap_tokens=0),
    )
    text = "Ducks swim on ponds. " * 20 + "Trains run on rails. " * 20
    retriever.add_documents([Document(id="a", page_content=text)])
    parents = M3TextSplitter(encoder=encoder, chunk_tokens=64, overlap_tokens=0).split_text(text)
    found = retriever.invoke("trains on rails")
    assert {document.page_content for document in found} <= set(parents)
    assert "Trains" in found[0].page_content
    start = found[0].metadata["start_index"]
    assert text[start : start + len(found[0].page_content)] == found[0].page_content
    assert await retriever.ainvoke("trains on rails") == found


def test_the_splitter_stands_by_itself_without_langchains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_text_splitters", None)
    monkeypatch.delitem(sys.modules, "m3rag.langchain.text_splitter")
    alone = importlib.import_module("m3rag.langchain.text_splitter").M3TextSplitter
    assert alone is not M3TextSplitter
    options = {"encoder": HashEncoder(), "chunk_tokens": 16, "overlap_tokens": 0}
    text = "Ducks swim on ponds. " * 20
    assert alone(**options).create_documents([text]) == M3TextSplitter(**options).create_documents([text])


def test_what_was_looked_at_lately_comes_first() -> None:
    with M3VectorStore(collection=Collection(":memory:", encoder=HashEncoder())) as store:
        retriever = retrievers.TimeWeightedVectorStoreRetriever(vectorstore=store, decay_rate=0.5, k=1)
        now = datetime.now()
        for days, text in enumerate(FILES.values()):
            ago = {"last_accessed_at": now - timedelta(days=days)}
            retriever.add_documents([Document(page_content=text, metadata=ago)])
        (found,) = retriever.invoke("trains on rails, boats on water")
        assert found.page_content == FILES["ducks.txt"]
        assert isinstance(found.metadata["last_accessed_at"], datetime)
        older = store.similarity_search("boats", filter={"last_accessed_at": {"$lt": now - timedelta(days=1, hours=1)}})
        assert [document.page_content for document in older] == [FILES["boats.txt"]]


def test_the_store_finds_a_passage_once_for_many_questions(knowledge_base: KnowledgeBase) -> None:
    llm = FakeListChatModel(responses=["ducks on ponds\nwhat ducks eat\nducks"])
    retriever = M3VectorStore(collection=knowledge_base).as_retriever(search_kwargs={"k": 3})
    found = retrievers.MultiQueryRetriever.from_llm(retriever, llm).invoke(QUERY)
    assert sorted(sources(found)) == sorted(FILES)


def test_a_question_that_is_only_a_filter_finds_what_passes(knowledge_base: KnowledgeBase) -> None:
    class Translator(Visitor):
        def visit_operation(self, operation: Any) -> Any:
            raise NotImplementedError

        def visit_comparison(self, comparison: Any) -> Any:
            raise NotImplementedError

        def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
            return structured_query.query, {"filter": {"document_id": "boats.txt"}}

    understood = StructuredQuery(query=" ", filter=None, limit=None)  # so SelfQueryRetriever calls a missing question
    retriever = retrievers.SelfQueryRetriever(
        query_constructor=RunnableLambda(lambda _: understood),
        vectorstore=M3VectorStore(collection=knowledge_base),
        structured_query_translator=Translator(),
    )
    assert sources(retriever.invoke("all about boats")) == ["boats.txt"]
