from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import IndexNode, MetadataMode, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

from m3rag import Chunk, Hit, KnowledgeBase
from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, IndexMissingError, InputError
from m3rag.llama_index import M3Retriever, M3VectorStore
from m3rag.retrieval import SearchOptions
from m3rag.retrieval.hybrid import CANDIDATES
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import LegScores

FILES = {
    "ducks.md": "# Birds\n\n## Ducks\n\nDucks swim on ponds and eat water plants.\n",
    "geese.md": "# Birds\n\n## Geese\n\nGeese fly south in autumn, far from the ponds.\n",
    "trains.txt": "Trains run on rails between the cities.\n",
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

    def search(self, query: str, **options: Any) -> list[Hit]:
        self.asked.append({"query": query} | options)
        return [self.hit]

    async def asearch(self, query: str, **options: Any) -> list[Hit]:
        return self.search(query, **options)


def a_hit(**chunk: Any) -> Hit:
    given = {"id": "c1", "document_id": "a.pdf", "text": "Ducks swim.", "start": 5, "end": 16} | chunk
    return Hit(Chunk(**given), 0.75, LegScores(dense=0.5, lexical=0.25))


def test_the_best_node_is_first_and_carries_its_place(knowledge_base: KnowledgeBase) -> None:
    found = M3Retriever(knowledge_base).retrieve("ducks eat water plants")
    hits = knowledge_base.search("ducks eat water plants", k=10)
    assert [(n.node_id, n.score) for n in found] == [(h.chunk.id, h.score) for h in hits]
    node = found[0].node
    assert isinstance(node, TextNode)
    assert FILES["ducks.md"][node.start_char_idx : node.end_char_idx] == node.text
    assert node.ref_doc_id == node.metadata["document_id"] == "ducks.md"
    assert node.metadata["headings"] == list(hits[0].chunk.headings) != []
    assert node.metadata["scores"]["dense"] == hits[0].scores.dense


def test_top_k_filters_and_mode_are_honoured(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(
        knowledge_base, similarity_top_k=1, filters={"document_id": ["geese.md", "trains.txt"]}, mode="dense"
    )
    (found,) = retriever.retrieve("ducks swim on ponds")
    assert found.metadata["document_id"] in ("geese.md", "trains.txt")
    assert found.metadata["scores"]["lexical"] is None
    with pytest.raises(ConfigurationError, match="unknown mode 'sideways'"):
        M3Retriever(knowledge_base, mode="sideways").retrieve("ducks")


async def test_top_k_may_be_set_anew(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base)
    assert retriever.similarity_top_k == 10
    retriever.similarity_top_k = 1
    assert retriever.similarity_top_k == 1
    assert len(retriever.retrieve("ducks")) == len(await retriever.aretrieve("ducks")) == 1
    with pytest.raises(InputError, match="similarity_top_k must be at least 1, got 0"):
        retriever.similarity_top_k = 0
    assert retriever.similarity_top_k == 1
    retriever.similarity_top_k = None  # the setting
    assert len(retriever.retrieve("ducks")) == len(FILES)
    assert len(M3Retriever(knowledge_base, similarity_top_k=np.int64(2)).retrieve("ducks")) == 2


async def test_it_retrieves_asynchronously_just_the_same(knowledge_base: KnowledgeBase) -> None:
    retriever = M3Retriever(knowledge_base)
    assert await retriever.aretrieve("ducks") == retriever.retrieve("ducks")


def test_a_query_engine_answers_from_what_was_found(knowledge_base: KnowledgeBase) -> None:
    engine = RetrieverQueryEngine.from_args(M3Retriever(knowledge_base, similarity_top_k=2), llm=MockLLM())
    response = engine.query("What do ducks eat on ponds?")
    assert len(response.source_nodes) == 2
    assert response.source_nodes[0].metadata["document_id"] == "ducks.md"
    prompt = str(response)  # MockLLM answers with its prompt
    assert "Ducks swim on ponds and eat water plants." in prompt
    assert "document_id: ducks.md" in prompt
    assert "scores" not in prompt


async def test_every_option_reaches_the_search() -> None:
    double = Double(a_hit())
    M3Retriever(double).retrieve("q")
    options = {"mode": "all", "weights": "mldr", "fusion": "rrf", "rrf_k": 5, "score_threshold": 0.1, "diversity": 0.2}
    options |= {"group_by_document": 2, "reranker": None, "rerank_top": 20, "alpha": None}
    retriever = M3Retriever(double, similarity_top_k=2, filters={"lang": "en"}, **options)
    retriever.retrieve("q")
    await retriever.aretrieve("q")
    given = {"query": "q", "k": 2, "filter": {"lang": "en"}} | options
    assert double.asked == [{"query": "q", "k": 10}, given, given]
    assert set(options) | {"k", "filter"} == set(SearchOptions.__annotations__)


def test_filters_of_llama_index_say_the_same(knowledge_base: KnowledgeBase) -> None:
    def found(operator: str, value: Any) -> list[str]:
        one = MetadataFilter(key="doc_id", operator=operator, value=value)
        retriever = M3Retriever(knowledge_base, filters=MetadataFilters(filters=[one]))
        return sorted(node.metadata["document_id"] for node in retriever.retrieve("ducks swim on ponds"))

    assert found("in", ["geese.md", "trains.txt"]) == ["geese.md", "trains.txt"]
    assert found("text_match", "es") == ["geese.md"]  # no operator of m3rag's own
    assert found("text_match", "zebra") == []


@pytest.mark.parametrize("mode", ["dense", "lexical", "colbert", "all", "bm25", "dense+bm25"])
def test_what_a_filter_finds_does_not_hang_on_whether_the_store_can_test_it(mode: str) -> None:
    # More of one document than any leg brings, all better than the others, and one without a token.
    chunks = [Chunk(f"a{n:03}", "a", "ducks swim", 0, 10, metadata={"kind": "text"}) for n in range(CANDIDATES + 1)]
    chunks += [Chunk(name, name, "geese and ducks", 0, 15, metadata={"kind": "text"}) for name in ("b", "c")]
    chunks.append(Chunk("d", "d", "", 0, 0, metadata={"kind": "text"}))
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        collection.upsert(chunks)

        def found(operator: str, **options: Any) -> list[str]:
            filters = MetadataFilters(filters=[MetadataFilter(key="kind", operator=operator, value="text")])
            retriever = M3Retriever(collection, filters=filters, mode=mode, **options)
            return [node.node_id for node in retriever.retrieve("ducks swim")]

        one_of_each = found("==", group_by_document=1)
        assert one_of_each[:3] == ["a000", "b", "c"]
        assert found("text_match", group_by_document=1) == one_of_each
        everything = {"similarity_top_k": len(chunks)}
        assert found("text_match", **everything) == found("==", **everything)


def test_a_node_that_llama_index_wrote_comes_back_whole() -> None:
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        node = TextNode(text="Ducks swim.", id_="n", metadata={"lang": "en"}, text_template="<{content}>")
        M3VectorStore(collection).add([node])
        (found,) = M3Retriever(collection).retrieve("ducks")
    assert found.node.text_template == "<{content}>"
    assert found.metadata["lang"] == "en"
    assert (found.metadata["document_id"], found.node_id) == ("n", "n")


def test_what_a_node_says_of_its_place_itself_is_left_as_it_is() -> None:
    said = {"document_id": "DOI 10.1", "page": "iv", "headings": "Birds", "lang": "en"}
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        M3VectorStore(collection).add([TextNode(text="Ducks swim.", id_="n", metadata=said)])
        (found,) = M3Retriever(collection).retrieve("ducks")
    assert {key: found.metadata[key] for key in said} == said


def test_without_an_index_it_says_so_and_a_store_is_empty() -> None:
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        assert M3VectorStore(collection).query(VectorStoreQuery(query_str="ducks", similarity_top_k=1)).nodes == []
        with pytest.raises(IndexMissingError, match="ingest or upsert first"):
            M3Retriever(collection).retrieve("ducks")


def test_the_strings_of_a_transformed_query_are_searched_for() -> None:
    double = Double(a_hit())
    M3Retriever(double).retrieve(QueryBundle("what?", custom_embedding_strs=["Ducks swim.", "what?"]))
    assert double.asked[0]["query"] == "Ducks swim.\nwhat?"


@pytest.mark.parametrize("given", ["object_map", "objects"])
def test_what_stands_behind_an_index_node_takes_its_place(given: str) -> None:
    behind = M3Retriever(Double(a_hit(id="behind")))
    objects = {"object_map": {"birds": behind}, "objects": [IndexNode(index_id="birds", text="", obj=behind)]}
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        M3VectorStore(collection).add([IndexNode(index_id="birds", text="Of birds.", id_="n")])
        retriever = M3Retriever(collection, **{given: objects[given]})
        assert [found.node_id for found in retriever.retrieve("birds")] == ["behind"]
        assert [found.node_id for found in asyncio.run(retriever.aretrieve("birds"))] == ["behind"]
        assert [found.node_id for found in M3Retriever(collection).retrieve("birds")] == ["n"]


def test_the_node_is_a_new_object_with_the_metadata_of_the_chunk() -> None:
    hit = a_hit(page=3, metadata={"tags": ["a"], "scores": "mine"})
    (found,) = M3Retriever(Double(hit)).retrieve("q")
    assert found.metadata == {
        "tags": ["a"],
        "document_id": "a.pdf",
        "headings": [],
        "page": 3,
        "scores": {"dense": 0.5, "lexical": 0.25, "colbert": None, "bm25": None, "rerank": None},
    }
    found.metadata["tags"].append("b")
    assert hit.chunk.metadata["tags"] == ["a"]


@pytest.mark.parametrize("mode", [MetadataMode.EMBED, MetadataMode.LLM])
def test_scores_are_shown_to_no_model(mode: MetadataMode) -> None:
    (found,) = M3Retriever(Double(a_hit())).retrieve("q")
    assert "scores" not in found.node.get_content(metadata_mode=mode)
    assert "document_id: a.pdf" in found.node.get_content(metadata_mode=mode)
    assert "page" not in found.metadata


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"knowledge_base": "my-index"}, r"'my-index', must be an m3rag.KnowledgeBase: KnowledgeBase\('my-index'\)"),
        ({"similarity_top_k": 0}, "similarity_top_k must be at least 1, got 0"),
        ({"filters": ["a.pdf"]}, "filters is a list, must be LlamaIndex's MetadataFilters, or a dict such as"),
        ({"explain": True}, "unknown option explain: M3Retriever takes similarity_top_k, filters, alpha, "),
        ({"score_threshold": "high"}, "score_threshold must be a number, got 'high'"),
        ({"mode": "best"}, "unknown mode 'best': choose one of dense, "),
        ({"mode": "dense", "alpha": 0.5}, "alpha weighs a dense against a keyword leg, which mode 'dense' does not"),
    ],
)
def test_what_cannot_be_used_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ConfigurationError), match=message):
        M3Retriever(**{"knowledge_base": Double(a_hit())} | arguments)
