"""What LlamaIndex's base class of vector stores implies."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from pydantic import ValidationError

from m3rag import KnowledgeBase
from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, InputError
from m3rag.llama_index import M3Embedding, M3VectorStore
from m3rag.reranking import ColbertReranker
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

TEXTS = {
    "n1": ("a.txt", "Ducks swim on ponds and eat water plants.", {"lang": "en", "year": 2001}),
    "n2": ("a.txt", "Ducks fly in autumn, far from the ponds.", {"lang": "en", "year": 2010}),
    "n3": ("b.txt", "Enten schwimmen auf dem Teich 🦆.", {"lang": "de"}),
    "n4": ("c.txt", "Trains run on rails between the cities.", {"lang": "en", "year": 1990}),
}


def node(key: str, text: str | None = None) -> TextNode:
    document, own, metadata = TEXTS[key]
    source = RelatedNodeInfo(node_id=document)
    return TextNode(id_=key, text=text or own, metadata=dict(metadata), relationships={NodeRelationship.SOURCE: source})


def ids(nodes: Any) -> list[str]:
    return sorted(one.node_id for one in nodes)


def where(key: str, value: Any, operator: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.fixture(params=["memory", "edge", "chroma", "qdrant"])
def collection(request: pytest.FixtureRequest, index_at: Callable[[str], Any]) -> Iterator[Collection]:
    with Collection(index_at(request.param), encoder=HashEncoder(), settings=Settings()) as collection:
        yield collection


@pytest.fixture
def store(collection: Collection) -> M3VectorStore:
    store = M3VectorStore(collection)
    assert store.add([node(key) for key in TEXTS]) == list(TEXTS)
    return store


def test_a_store_without_an_index_is_empty(collection: Collection) -> None:
    store = M3VectorStore(collection)
    assert store.add([]) == []
    assert store.get_nodes() == store.get_nodes(["n1"]) == []
    result = store.query(VectorStoreQuery(query_str="ducks", similarity_top_k=3))
    assert (result.nodes, result.similarities, result.ids) == ([], [], [])
    store.delete("a.txt")
    store.delete_nodes(["n1"])
    store.clear()
    assert not collection.exists


def test_nodes_come_back_and_inputs_stay_as_they_are(store: M3VectorStore) -> None:
    given = [node(key) for key in TEXTS]
    store.add(given)
    assert given == [node(key) for key in TEXTS]
    assert store.get_nodes(["n3", "nothing", "n1"]) == [node("n3"), node("n1")]
    assert ids(store.get_nodes()) == list(TEXTS)
    assert store.client.store.document("a.txt").chunks == 2


def test_the_same_id_overwrites_and_the_last_of_two_counts(store: M3VectorStore) -> None:
    assert store.add([node("n1", "Zebras run."), node("n1", "Foxes dig.")]) == ["n1", "n1"]
    assert store.get_nodes(["n1"])[0].get_content() == "Foxes dig."
    assert len(store.get_nodes()) == len(TEXTS)
    found = store.query(VectorStoreQuery(query_str="foxes", mode="sparse", similarity_top_k=4))
    assert found.ids == ["n1"]
    assert store.query(VectorStoreQuery(query_str="plants", mode="sparse", similarity_top_k=4)).ids == []


def test_an_iterator_of_nodes_is_added_with_its_ids(collection: Collection) -> None:
    store = M3VectorStore(collection)
    assert store.add(node(key) for key in TEXTS) == list(TEXTS)  # type: ignore[arg-type]
    assert ids(store.get_nodes()) == list(TEXTS)


def test_a_document_goes_with_all_its_nodes(store: M3VectorStore) -> None:
    store.delete("a.txt")
    store.delete("no such document")
    assert ids(store.get_nodes()) == ["n3", "n4"]
    assert [document.id for document in store.client.documents()] == ["b.txt", "c.txt"]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"node_ids": ["n1", "nothing"]}, ["n2", "n3", "n4"]),
        ({"node_ids": []}, ["n1", "n2", "n3", "n4"]),
        ({"filters": where("lang", "en")}, ["n3"]),
        ({"filters": where("lang", "e", "text_match")}, []),
        ({"filters": {"year": {"$lt": 2005}}}, ["n2", "n3"]),
        ({"node_ids": ["n1", "n3"], "filters": where("lang", "en")}, ["n2", "n3", "n4"]),
        ({"filters": where("year", None, "is_empty")}, ["n1", "n2", "n4"]),
    ],
)
def test_nodes_go_by_id_and_by_filter(store: M3VectorStore, arguments: dict[str, Any], left: list[str]) -> None:
    kept = ids(store.get_nodes(**arguments))
    store.delete_nodes(**arguments)
    assert ids(store.get_nodes()) == left
    assert sorted([*kept, *left]) == list(TEXTS)


@pytest.mark.parametrize("arguments", [{}, {"filters": MetadataFilters(filters=[])}, {"filters": {}}])
def test_nothing_said_deletes_nothing(store: M3VectorStore, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="node_ids or filters that say something"):
        store.delete_nodes(**arguments)
    assert len(store.get_nodes()) == len(TEXTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a text"], r"node 0 is a str, must be a node: TextNode\(text=\.\.\.\)"),
        ([TextNode(text="a"), NodeWithScore(node=TextNode(text="b"))], "node 1 is a NodeWithScore, .*its `node`"),
        (TextNode(text="a"), "nodes is a TextNode, must be a list"),
        (None, "nodes is a NoneType, must be a list"),
    ],
)
def test_what_is_no_node_is_named(collection: Collection, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        M3VectorStore(collection).add(given)
    assert not collection.exists


def test_one_string_is_no_list_of_its_letters(store: M3VectorStore) -> None:
    store.add([TextNode(id_=id, text="Ducks.") for id in ("n", "1")])
    for call in (
        lambda: store.delete_nodes("n1"),
        lambda: store.get_nodes("n1"),
        lambda: store.query(VectorStoreQuery(query_str="ducks", node_ids="n1")),
        lambda: store.query(VectorStoreQuery(query_str="ducks", doc_ids="n1")),
    ):
        with pytest.raises(InputError, match="_ids must be a list, got one string: 'n1'; put it in a list"):
            call()
    assert len(store.get_nodes()) == len(TEXTS) + 2


def test_of_no_documents_nothing_is_found(store: M3VectorStore) -> None:
    # Whose rights leave no document must not see all of them.
    assert store.query(VectorStoreQuery(query_str="ducks", similarity_top_k=9, doc_ids=[])).ids == []
    assert len(store.query(VectorStoreQuery(query_str="ducks", similarity_top_k=9, node_ids=[])).ids) == len(TEXTS)


def test_clear_leaves_an_empty_index(store: M3VectorStore) -> None:
    store.clear()
    assert store.get_nodes() == []
    assert store.client.documents() == []
    store.add([node("n1")])
    assert ids(store.get_nodes()) == ["n1"]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("default", {"mode": "dense"}),
        ("sparse", {"mode": "lexical"}),
        ("hybrid", {"mode": "all"}),
        ("text_search", {"mode": "bm25"}),
        ("mmr", {"mode": "dense", "diversity": 0.5}),
    ],
)
def test_each_mode_is_the_search_that_it_says(store: M3VectorStore, mode: str, options: dict[str, Any]) -> None:
    question = "do ducks swim on ponds?"
    result = store.query(VectorStoreQuery(query_str=question, similarity_top_k=3, mode=VectorStoreQueryMode(mode)))
    hits = store.client.search(question, k=3, **options)
    assert result.ids == [hit.chunk.id for hit in hits] == [one.node_id for one in result.nodes or []]
    assert result.similarities == [hit.score for hit in hits]
    assert result.ids[0] == "n1"


def test_alpha_goes_from_keywords_to_the_dense_leg(store: M3VectorStore) -> None:
    def found(alpha: float) -> VectorStoreQuery:
        query = VectorStoreQuery(query_str="ducks far from ponds", similarity_top_k=4, mode="hybrid", alpha=alpha)
        return store.query(query)

    def ordered(mode: str) -> list[str]:
        return [hit.chunk.id for hit in store.client.search("ducks far from ponds", k=4, mode=mode)]

    assert found(1.0).ids == ordered("dense")
    assert found(0.0).ids[:2] == ordered("lexical")[:2]
    hits = store.client.search("ducks far from ponds", k=4, mode="dense+lexical", alpha=0.3)
    assert found(0.3).similarities == [hit.score for hit in hits]


def test_each_mode_has_its_top_k(store: M3VectorStore) -> None:
    def count(**options: Any) -> int:
        return len(store.query(VectorStoreQuery(query_str="ducks ponds on", similarity_top_k=1, **options)).ids or [])

    assert count() == count(sparse_top_k=3, hybrid_top_k=3) == 1
    assert (count(mode="sparse"), count(mode="sparse", sparse_top_k=3)) == (1, 3)
    assert (count(mode="hybrid"), count(mode="hybrid", hybrid_top_k=3)) == (1, 3)
    assert count(mode="hybrid", sparse_top_k=1000) == 1
    for mode in ("sparse", "hybrid"):
        with pytest.raises(InputError, match="must be at least 1, got -1"):
            count(mode=mode, sparse_top_k=-1)


def test_an_embedding_alone_is_enough_for_the_dense_modes(store: M3VectorStore) -> None:
    vector = HashEncoder().encode_queries(["ducks swim"]).dense[0]
    for mode in ("default", "mmr"):
        by_text = store.query(VectorStoreQuery(query_str="ducks swim", similarity_top_k=3, mode=mode))
        scaled = (3 * vector).tolist()  # other models do not scale theirs
        by_vector = store.query(VectorStoreQuery(query_embedding=scaled, similarity_top_k=3, mode=mode))
        blank = VectorStoreQuery(query_embedding=scaled, query_str="", similarity_top_k=3, mode=mode)
        assert by_vector.ids == by_text.ids == store.query(blank).ids
        assert by_vector.similarities == pytest.approx(by_text.similarities, abs=1e-6)
    for mode, name in (("hybrid", "all"), ("sparse", "lexical"), ("text_search", "bm25")):
        for text in (None, ""):
            with pytest.raises(InputError, match=f"mode '{name}' reads the question itself: give query_str beside"):
                store.query(VectorStoreQuery(query_embedding=vector.tolist(), query_str=text, mode=mode))
    with pytest.raises(InputError, match="the reranker reads the question itself: give query_str beside"):
        store.query(VectorStoreQuery(query_embedding=vector.tolist()), reranker=ColbertReranker(HashEncoder()))
    with pytest.raises(InputError, match="an embedding has 3 dimensions, but the index those of hash, 32"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="give query_str, or query_embedding"):
        store.query(VectorStoreQuery())


def test_an_embedding_beside_the_text_is_the_dense_leg_of_it(store: M3VectorStore) -> None:
    trains = HashEncoder().encode_queries(["trains on rails"]).dense[0].tolist()
    result = store.query(VectorStoreQuery(query_str="ducks swim", query_embedding=trains, similarity_top_k=4))
    assert result.ids[0] == "n4"
    hybrid = store.query(
        VectorStoreQuery(query_str="ducks swim", query_embedding=trains, similarity_top_k=4, mode="hybrid"),
        weights="1/0/0",
    )
    assert hybrid.similarities == pytest.approx(result.similarities, abs=1e-6)


@pytest.mark.parametrize("mode", ["default", "sparse", "hybrid", "text_search", "mmr"])
def test_only_the_nodes_asked_for_count_in_every_mode(store: M3VectorStore, mode: str) -> None:
    def found(**options: Any) -> dict[str, float]:
        query = VectorStoreQuery(query_str="ducks ponds on", similarity_top_k=9, mode=mode, **options)
        result = store.query(query)
        return dict(zip(result.ids or [], result.similarities or [], strict=True))

    everywhere = found()
    for options, allowed in (
        ({"node_ids": ["n2", "n4", "nothing"]}, {"n2", "n4"}),
        ({"doc_ids": ["a.txt"]}, {"n1", "n2"}),
        ({"doc_ids": ["a.txt", "c.txt"], "filters": where("year", 2005, "<")}, {"n1", "n4"}),
        ({"filters": where("lang", "D", "text_match_insensitive")}, {"n3"}),
        ({"node_ids": ["n2", "n3"], "filters": where("year", None, "is_empty")}, {"n3"}),
    ):
        result = found(**options)
        assert result.keys() == everywhere.keys() & allowed
        assert result == pytest.approx({key: everywhere[key] for key in result}, abs=1e-6)


def test_mmr_threshold_goes_from_variety_to_the_score_alone(store: M3VectorStore) -> None:
    store.add([TextNode(id_="n1b", text=TEXTS["n1"][1])])  # the best one twice

    def found(**options: Any) -> list[str]:
        query = VectorStoreQuery(query_str="ducks swim on ponds", similarity_top_k=2, mode="mmr")
        return store.query(query, **options).ids or []

    assert found(mmr_threshold=1.0) == ["n1", "n1b"]
    assert "n1b" not in found(mmr_threshold=0.1)
    with pytest.raises(InputError, match="mmr_threshold goes from 0"):
        found(mmr_threshold=2)


@pytest.mark.parametrize("mode", ["svm", "semantic_hybrid", "logistic_regression", "linear_regression"])
def test_other_modes_are_refused_by_name(store: M3VectorStore, mode: str) -> None:
    with pytest.raises(InputError, match=f"query mode '{mode}' is none of M3VectorStore's: choose one of default"):
        store.query(VectorStoreQuery(query_str="ducks", mode=VectorStoreQueryMode(mode)))


def test_options_of_a_search_reach_it_and_others_are_refused(store: M3VectorStore) -> None:
    query = VectorStoreQuery(query_str="ducks on ponds", similarity_top_k=4, mode="hybrid")
    hits = store.client.search("ducks on ponds", k=4, weights="0/1/0", score_threshold=0.05)
    result = store.query(query, weights="0/1/0", score_threshold=0.05)
    assert (result.ids, result.similarities) == ([hit.chunk.id for hit in hits], [hit.score for hit in hits])
    with pytest.raises(InputError, match="unknown option qdrant_filters: a query of M3VectorStore takes alpha"):
        store.query(query, qdrant_filters=None)


async def test_asynchronous_twins_do_the_same(collection: Collection) -> None:
    store = M3VectorStore(collection)
    assert await store.async_add([node(key) for key in TEXTS]) == list(TEXTS)
    for query in (
        VectorStoreQuery(query_str="ducks", similarity_top_k=3, mode="hybrid"),
        VectorStoreQuery(query_str="ducks", similarity_top_k=3, filters=where("lang", "e", "text_match")),
    ):
        assert await store.aquery(query) == store.query(query)
    assert await store.aget_nodes(["n2"], where("lang", "en")) == [node("n2")]
    await store.adelete("a.txt")
    await store.adelete_nodes(None, where("lang", "de"))
    assert ids(await store.aget_nodes()) == ["n4"]
    await store.aclear()
    assert await store.aget_nodes() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.async_add([node("n1")]),
        lambda store: store.aquery(VectorStoreQuery(query_str="ducks")),
        lambda store: store.aget_nodes(),
        lambda store: store.adelete("a.txt"),
        lambda store: store.adelete_nodes(["n1"]),
        lambda store: store.aclear(),
    ],
)
async def test_the_event_loop_goes_on(call: Callable[[M3VectorStore], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    beat = threading.Event()

    class Slow(Collection):
        def _wait(self) -> None:
            assert beat.wait(10), "the event loop was blocked"

        @property
        def exists(self) -> bool:
            self._wait()
            return super().exists

        @property
        def manifest(self) -> Any:
            self._wait()
            return super().manifest

    with Slow(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        task = asyncio.create_task(call(M3VectorStore(collection)))
        await asyncio.sleep(0.02)
        beat.set()
        await task


def test_several_threads_add_find_and_delete(collection: Collection) -> None:
    store = M3VectorStore(collection)

    def work(number: int) -> list[str]:
        texts = [f"duck {number} swims, {i}" for i in range(5)]
        given = [TextNode(id_=f"{number}-{i}", text=text) for i, text in enumerate(texts)]
        added = store.add(given)
        query = VectorStoreQuery(query_str=texts[0], similarity_top_k=1, node_ids=added)
        assert store.query(query).ids == [added[0]]
        store.delete_nodes(added[1:])
        return added[:1]

    with ThreadPoolExecutor(4) as pool:
        left = [key for keys in pool.map(work, range(8)) for key in keys]
    assert ids(store.get_nodes()) == sorted(left)


def test_what_is_written_is_there_after_reopening(tmp_path: Path) -> None:
    with Collection(tmp_path / "index", encoder=HashEncoder(), settings=Settings()) as collection:
        M3VectorStore(collection).add([node(key) for key in TEXTS])
    with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=Settings()) as knowledge_base:
        store = M3VectorStore(knowledge_base)
        assert sorted(store.get_nodes(), key=lambda one: one.node_id) == [node(key) for key in TEXTS]
        assert knowledge_base.search("ducks swim", k=1)[0].chunk.document_id == "a.txt"


def test_a_pickle_and_a_dict_say_where_and_share_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(index_api_key="secret-key")
    with Collection(tmp_path / "index", encoder=HashEncoder(), settings=settings) as collection:
        store = M3VectorStore(collection)
        store.add([node("n1")])
        stored, fields = pickle.dumps(store), store.to_dict()
        assert b"secret-key" not in stored
        assert "secret-key" not in store.to_json() + repr(store)
        for restored in (pickle.loads(stored), M3VectorStore.from_dict(fields), copy.deepcopy(store)):  # noqa: S301
            assert restored.client is collection
            assert restored.to_dict() == fields
            assert ids(restored.get_nodes()) == ["n1"]


def test_a_restored_store_opens_the_index_where_nobody_has(tmp_path: Path) -> None:
    store = M3VectorStore(index=tmp_path / "index", dense_dim=3)
    store.add([TextNode(id_="x", text="Ducks.", embedding=[1.0, 0.0, 0.0])])
    store.client.close()
    stored = pickle.dumps(store)
    del store
    restored = pickle.loads(stored)  # noqa: S301
    with restored.client:
        assert ids(restored.get_nodes()) == ["x"]


@pytest.mark.parametrize("write", [pickle.dumps, M3VectorStore.to_dict, M3VectorStore.to_json])
def test_an_index_in_memory_is_not_written_down(write: Callable[[M3VectorStore], object]) -> None:
    with (
        Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection,
        pytest.raises(InputError, match="an index in memory cannot be pickled, nor restored"),
    ):
        write(M3VectorStore(collection))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "takes a collection, or index='my-index'"),
        ({"collection": "my-index"}, "collection is 'my-index', must be an m3rag.Collection or KnowledgeBase"),
        ({"index": "x", "dense_dim": 3, "model": "mini"}, "dense_dim is for embeddings that nodes bring"),
    ],
)
def test_what_cannot_be_used_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        M3VectorStore(**arguments)


@pytest.mark.parametrize("make", [partial(M3VectorStore, index="x"), partial(M3Embedding, model_name="mini")])
def test_a_key_in_the_wrong_place_is_not_shown(make: Callable[..., Any]) -> None:
    with pytest.raises(ValidationError, match="api_key") as raised:
        make(api_key="sk-secret")
    assert "sk-secret" not in str(raised.value)


def test_given_embeddings_serve_the_dense_modes_and_bm25(tmp_path: Path) -> None:
    store = M3VectorStore(index=":memory:", dense_dim=32)
    assert store.is_embedding_query
    encoder = HashEncoder()
    texts = {key: text for key, (_, text, _) in TEXTS.items()}
    vectors = 5 * encoder.encode_documents(list(texts.values())).dense
    store.add([node(key).model_copy(update={"embedding": v.tolist()}) for key, v in zip(texts, vectors, strict=True)])
    question = encoder.encode_queries(["ducks swim on ponds"]).dense[0]
    query = VectorStoreQuery(query_embedding=question.tolist(), query_str="trains", similarity_top_k=4)
    result = store.query(query)
    cosines = {key: float(v @ question / np.linalg.norm(v)) for key, v in zip(texts, vectors, strict=True)}
    assert dict(zip(result.ids, result.similarities, strict=True)) == pytest.approx(cosines, abs=1e-5)
    assert result.similarities == sorted(result.similarities, reverse=True)
    query.mode = VectorStoreQueryMode.HYBRID
    assert {"n1", "n4"} <= set(store.query(query).ids[:2])
    query.mode = VectorStoreQueryMode.TEXT_SEARCH
    assert store.query(query).ids == ["n4"]
    query.mode = VectorStoreQueryMode.SPARSE
    with pytest.raises(ConfigurationError, match="needs the leg lexical, which the model given-32 does not give"):
        store.query(query)
    with pytest.raises(ConfigurationError, match="bring query_embedding, and nodes with their embedding"):
        store.query(VectorStoreQuery(query_str="ducks"))
    with pytest.raises(InputError, match="node 'n1' brings no embedding"):
        store.add([node("n1")])
    with pytest.raises(InputError, match="an embedding has 2 dimensions"):
        store.add([TextNode(text="x", embedding=[0.0, 1.0])])
    with pytest.raises(InputError, match="with dense_dim the store encodes nothing"):
        _ = store.embed_model
