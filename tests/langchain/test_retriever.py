from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from m3rag import Chunk, Hit, KnowledgeBase
from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, IndexMissingError, InputError
from m3rag.langchain import M3Retriever
from m3rag.reranking import ColbertReranker
from m3rag.retrieval import SearchOptions, TokenMatch
from m3rag.scoring import Weights
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import LegScores

FILES = {
    "ducks.md": "# Birds\n\n## Ducks\n\nDucks swim on ponds and eat water plants.\n",
    "geese.md": "# Birds\n\n## Geese\n\nGeese fly south in autumn, far from the ponds.\n",
    "trains.txt": "Trains run on rails between the cities.\n",
    "boats.txt": "Boats swim on the water too, but they eat nothing.\n",
}


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    index = tmp_path_factory.mktemp("kb") / "index"
    with KnowledgeBase(index, encoder=HashEncoder(), settings=Settings()) as knowledge_base:
        knowledge_base.ingest(folder)
        yield knowledge_base


class Double:
    """A knowledge base that gives one hit and remembers how it was asked."""

    def __init__(self, hit: Hit) -> None:
        self.hit = hit
        self.asked: list[dict[str, Any]] = []
        self.awaited = 0

    def search(self, query: str, **options: Any) -> list[Hit]:
        self.asked.append({"query": query} | options)
        return [self.hit]

    async def asearch(self, query: str, **options: Any) -> list[Hit]:
        self.awaited += 1
        return Double.search(self, query, **options)


def a_hit(**chunk: Any) -> Hit:
    given = {"id": "c1", "document_id": "a.pdf", "text": "Ducks swim.", "start": 5, "end": 16} | chunk
    return Hit(Chunk(**given), 0.75, LegScores(dense=0.5, lexical=0.25))


class TestSuite(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _open(self, knowledge_base: KnowledgeBase) -> None:
        self.knowledge_base = knowledge_base

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return M3Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"knowledge_base": self.knowledge_base}

    @property
    def retriever_query_example(self) -> str:
        return "What do ducks eat on the water?"


def test_the_best_document_is_first_and_carries_its_place(knowledge_base: KnowledgeBase) -> None:
    found = M3Retriever(knowledge_base=knowledge_base).invoke("ducks eat water plants")
    best, hit = found[0], knowledge_base.search("ducks eat water plants", k=10)[0]
    assert best.page_content == hit.chunk.text
    assert best.id == hit.chunk.id
    assert best.metadata["document_id"] == best.metadata["source"] == "ducks.md"
    assert best.metadata["headings"] == list(hit.chunk.headings) != []
    assert FILES["ducks.md"][best.metadata["start"] : best.metadata["end"]] == best.page_content
    assert best.metadata["relevance_score"] == hit.score
    assert best.metadata["scores"] == {
        "dense": hit.scores.dense,
        "lexical": hit.scores.lexical,
        "colbert": hit.scores.colbert,
        "bm25": None,
        "rerank": None,
    }
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)


def test_a_filter_holds_in_the_constructor_and_in_a_call(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=knowledge_base, filter={"document_id": "trains.txt"})
    assert [d.metadata["document_id"] for d in retriever.invoke("ducks")] == ["trains.txt"]
    called = retriever.invoke("ducks", filter={"document_id": ["geese.md", "boats.txt"]})
    assert {d.metadata["document_id"] for d in called} == {"geese.md", "boats.txt"}


async def test_options_of_a_call_are_honoured_asynchronously_too(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=knowledge_base)
    found = await retriever.ainvoke("ducks", k=1, filter={"document_id": ["geese.md", "boats.txt"]})
    assert [d.metadata["document_id"] for d in found] in (["geese.md"], ["boats.txt"])


def test_a_mode_leaves_out_the_other_legs(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=knowledge_base, mode="dense")
    assert retriever.invoke("ducks")[0].metadata["scores"]["lexical"] is None
    assert retriever.invoke("ducks", mode="dense+lexical")[0].metadata["scores"]["lexical"] is not None
    with pytest.raises(ConfigurationError, match="unknown mode 'sideways'"):
        retriever.invoke("ducks", mode="sideways")


def test_it_composes_into_a_chain(knowledge_base: KnowledgeBase) -> None:
    chain = M3Retriever(knowledge_base=knowledge_base, k=1) | RunnableLambda(lambda found: found[0].page_content)
    assert "Trains run" in chain.invoke("trains on rails")


ALL = {
    "k": 2,
    "mode": "dense+lexical",
    "filter": {"n": True},
    "weights": "mldr",
    "alpha": None,
    "fusion": "rrf",
    "rrf_k": 10.0,
    "score_threshold": 0.25,
    "diversity": 0.5,
    "group_by_document": 2,
    "reranker": ColbertReranker(HashEncoder()),
    "rerank_top": 20,
}


def test_the_options_are_those_of_every_search() -> None:
    assert set(SearchOptions.__annotations__) == set(ALL)
    assert set(SearchOptions.__annotations__) <= set(M3Retriever.model_fields)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_every_option_reaches_the_search_and_a_call_beats_the_constructor(asynchronous: bool) -> None:
    double = Double(a_hit())

    async def ask(retriever: M3Retriever, **options: Any) -> None:
        found = await retriever.ainvoke("q", **options) if asynchronous else retriever.invoke("q", **options)
        assert len(found) == 1

    nothing = dict.fromkeys(ALL) | {"k": 10}
    await ask(M3Retriever(knowledge_base=double))
    await ask(M3Retriever(knowledge_base=double), **ALL)
    await ask(M3Retriever(knowledge_base=double, **ALL))
    await ask(M3Retriever(knowledge_base=double, **ALL), verbose=True, **nothing)
    await ask(M3Retriever(knowledge_base=double, **ALL), weights=Weights(1, 0, 0), mode="dense")
    assert double.asked == [
        {"query": "q"} | nothing,
        {"query": "q"} | ALL,
        {"query": "q"} | ALL,
        {"query": "q"} | nothing,
        {"query": "q"} | ALL | {"weights": Weights(1, 0, 0), "mode": "dense"},
    ]
    assert double.asked[1]["filter"]["n"] is True
    assert double.awaited == (5 if asynchronous else 0)


async def test_an_explanation_names_the_shared_tokens(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=knowledge_base, explain=True)
    found = retriever.invoke("ducks eat water plants")
    tokens = found[0].metadata["explanation"]
    assert {match["token"] for match in tokens} == {"ducks", "eat", "water", "plants"}
    lexical = sum(match["contribution"] for match in tokens)
    assert lexical == pytest.approx(found[0].metadata["scores"]["lexical"], rel=1e-5)
    assert await retriever.ainvoke("ducks eat water plants") == found
    assert "explanation" not in retriever.invoke("ducks", explain=False)[0].metadata


def test_a_reranker_orders_what_is_given(knowledge_base: KnowledgeBase) -> None:
    reranker = ColbertReranker(knowledge_base.encoder, knowledge_base.store)
    found = M3Retriever(knowledge_base=knowledge_base, reranker=reranker).invoke("boats on the water")
    scores = [document.metadata["scores"] for document in found]
    assert [s["rerank"] for s in scores] == sorted((s["colbert"] for s in scores), reverse=True)
    assert [document.metadata["relevance_score"] for document in found] == [s["rerank"] for s in scores]


def test_widened_it_gives_the_passage_around_a_small_chunk(tmp_path: Path) -> None:
    text = "Ducks swim on ponds. " + "Many birds live there beside the ducks in summer. " * 30
    (tmp_path / "birds.txt").write_text(text, encoding="utf-8")
    settings = Settings(chunking="small-to-big", chunk_tokens=96)
    with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=settings) as knowledge_base:
        knowledge_base.ingest(tmp_path / "birds.txt")
        retriever = M3Retriever(knowledge_base=knowledge_base, k=1)
        (small,) = retriever.invoke("ducks swim")
        (big,) = retriever.invoke("ducks swim", widen=True)
    assert small.page_content in big.page_content
    assert len(big.page_content) > len(small.page_content)
    assert text[big.metadata["start"] : big.metadata["end"]] == big.page_content


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_as_a_tool_it_is_called_by_its_name(knowledge_base: KnowledgeBase) -> None:
    tool = M3Retriever(knowledge_base=knowledge_base, k=1).as_tool(name="birds", description="Searches the files.")
    assert tool.name == "birds"
    assert [document.metadata["source"] for document in tool.invoke("trains on rails")] == ["trains.txt"]


def test_the_document_is_a_new_object_with_the_metadata_of_the_chunk() -> None:
    hit = a_hit(page=3, metadata={"lang": "en", "tags": ["a"], "scores": "mine", "source": "https://ducks.example"})
    (document,) = M3Retriever(knowledge_base=Double(hit)).invoke("q")
    assert document == Document(
        id="c1",
        page_content="Ducks swim.",
        metadata={
            "lang": "en",
            "tags": ["a"],
            "source": "https://ducks.example",
            "document_id": "a.pdf",
            "page": 3,
            "start": 5,
            "end": 16,
            "headings": [],
            "relevance_score": 0.75,
            "scores": {"dense": 0.5, "lexical": 0.25, "colbert": None, "bm25": None, "rerank": None},
        },
    )
    document.metadata["tags"].append("b")
    assert hit.chunk.metadata["tags"] == ["a"]


def test_a_format_without_pages_gives_no_page() -> None:
    (document,) = M3Retriever(knowledge_base=Double(a_hit())).invoke("q")
    assert "page" not in document.metadata


async def test_the_event_loop_goes_on_while_hits_are_explained() -> None:
    beat = threading.Event()

    class Slow(Double):
        def explain(self, query: str, hits: list[Hit]) -> list[list[TokenMatch]]:
            assert beat.wait(10), "the event loop was blocked by the explanation"
            return [[TokenMatch("q", 1.0)] for _ in hits]

    search = asyncio.create_task(M3Retriever(knowledge_base=Slow(a_hit()), explain=True).ainvoke("q", k=1))
    await asyncio.sleep(0.05)
    beat.set()
    assert [document.metadata["explanation"] for document in await search] == [[{"token": "q", "contribution": 1.0}]]


def test_what_cannot_be_used_is_named(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=Double(a_hit()))
    with pytest.raises(InputError, match="unknown option top_k: M3Retriever takes k, mode, filter"):
        retriever.invoke("q", top_k=3)
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        M3Retriever(knowledge_base=knowledge_base).invoke("q", k=0)
    assert len(retriever.invoke("q", k=np.int64(2))) == 1
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        M3Retriever(knowledge_base=Double(a_hit()), k=0)
    with pytest.raises(ValueError, match=r"reranker is 'best', must be an m3rag.reranking.Reranker"):
        M3Retriever(knowledge_base=Double(a_hit()), reranker="best")
    with pytest.raises(InputError, match=r"reranker is 'best', must be an m3rag.reranking.Reranker"):
        retriever.invoke("q", reranker="best")
    with pytest.raises(ValueError, match="search_kwargs"):
        M3Retriever(knowledge_base=Double(a_hit()), search_kwargs={"k": 3})
    with pytest.raises(ValueError, match=r"'my-index', must be an m3rag.KnowledgeBase: KnowledgeBase\('my-index'\)"):
        M3Retriever(knowledge_base="my-index")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "nope"}, "unknown mode 'nope'"),
        ({"alpha": 2.0}, "alpha is the part of the dense leg, from 0"),
        ({"alpha": 0.5, "mode": "all"}, "choose mode='dense\\+lexical'"),
        ({"alpha": 0.5, "weights": "miracl"}, "alpha and weights say the same thing"),
        ({"fusion": "x"}, "unknown fusion 'x'"),
        ({"fusion": "weighted", "mode": "dense+bm25"}, "those of BM25 have no bound"),
        ({"rrf_k": -1.0}, "reciprocal rank fusion must be"),
        ({"diversity": 3.0}, "diversity goes from 0"),
        ({"filter": {"$x": 1}}, r"\$x"),
        ({"weights": "zz"}, "unknown weights 'zz'"),
        ({"rerank_top": 0}, "rerank_top must be at least 1"),
        ({"k": True}, "k must be a whole number, got True"),
        ({"rerank_top": "3"}, "rerank_top must be a whole number, got '3'"),
        ({"group_by_document": 2.0}, "group_by_document must be a whole number, got 2.0"),
    ],
)
def test_an_option_that_no_search_takes_is_told_when_it_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, ConfigurationError), match=said):
        M3Retriever(knowledge_base=Double(a_hit()), **options)


def test_a_missing_index_is_told(tmp_path: Path) -> None:
    retriever = M3Retriever(knowledge_base=Collection(tmp_path / "index", encoder=HashEncoder(), settings=Settings()))
    with pytest.raises(IndexMissingError, match="there is no index at"):
        retriever.invoke("ducks")


def test_what_a_call_may_still_complete_is_no_error(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base=knowledge_base, alpha=0.5, k=1)
    assert len(retriever.invoke("ducks", mode="dense+lexical")) == 1


def test_serialised_it_leaves_the_knowledge_base_out() -> None:
    retriever = M3Retriever(knowledge_base=Double(a_hit()), k=3)
    assert "knowledge_base" not in retriever.model_dump()
    assert "Double" not in repr(retriever)
