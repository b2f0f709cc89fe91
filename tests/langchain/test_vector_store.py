"""What LangChain's suite leaves out: scores, filters, options, MMR, odd input, other doors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from m3rag import KnowledgeBase
from m3rag.collection import Collection
from m3rag.encoder import M3Encoder
from m3rag.errors import ConfigurationError, IndexLockedError, IndexMismatchError, InputError
from m3rag.langchain import M3Embeddings, M3Retriever, M3VectorStore
from m3rag.langchain.foreign import EncoderEmbeddings
from m3rag.settings import Settings
from m3rag.store import QdrantEdgeStore
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

TEXTS = {
    "duck": ("Ducks swim on the pond.", {"lang": "en", "year": 2001, "tags": ["bird"]}),
    "goose": ("Geese swim on the pond too.", {"lang": "en", "year": 2005, "tags": ["bird"]}),
    "ente": ("Enten schwimmen.", {"lang": "de", "year": 2009, "tags": ["bird", "de"]}),
    "train": ("Trains run on rails.", {"lang": "en", "year": 2010}),
    "鸭子 🦆/#?": ("鸭子游泳。", {"lang": "zh"}),
}
DOCUMENTS = [Document(id=id, page_content=text, metadata=metadata) for id, (text, metadata) in TEXTS.items()]


def settings() -> Settings:
    return Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def store() -> Iterator[M3VectorStore]:
    with Collection(":memory:", encoder=HashEncoder(), settings=settings()) as collection:
        store = M3VectorStore(collection=collection)
        store.add_documents(DOCUMENTS)
        yield store


@pytest.fixture
def empty() -> M3VectorStore:
    return M3VectorStore(collection=Collection(":memory:", encoder=HashEncoder(), settings=settings()))


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def by_id(id: str | None) -> Document:
    return next(document for document in DOCUMENTS if document.id == id)


@pytest.mark.parametrize("mode", [None, "dense", "lexical", "colbert", "dense+lexical", "all", "bm25", "dense+bm25"])
def test_a_search_is_the_collections_and_gives_what_came_in(store: M3VectorStore, mode: str | None) -> None:
    hits = store.collection.search("ducks swim", k=3, mode=mode)
    found = store.similarity_search("ducks swim", k=3, mode=mode)
    assert ids(found) == [hit.chunk.id for hit in hits]
    assert found == [by_id(hit.chunk.id) for hit in hits]
    scored = store.similarity_search_with_score("ducks swim", k=3, mode=mode)
    assert [score for _, score in scored] == [hit.score for hit in hits]


async def test_a_question_that_says_nothing_finds_what_passes_its_filter(store: M3VectorStore) -> None:
    birds = {"duck", "goose", "ente"}
    asked: dict[str, Any] = {"filter": {"tags": "bird"}, "k": 3}
    assert set(ids(store.similarity_search(" ", **asked))) == birds
    assert set(ids(await store.asimilarity_search("", **asked))) == birds
    assert set(ids(store.max_marginal_relevance_search(" ", **asked))) == birds
    assert {score for _, score in store.similarity_search_with_relevance_scores(" ", **asked)} == {0.0}
    assert len(store.similarity_search(" ", filter=asked["filter"], k=2)) == 2
    assert store.similarity_search(" ", **asked, score_threshold=0.1) == []
    for wrong, said in (
        ({"k": 0}, "k must be at least 1"),
        ({"mode": "bogus"}, "unknown mode"),
        ({"k": 2.5}, "k must"),
    ):
        with pytest.raises((InputError, ConfigurationError), match=said):
            store.similarity_search(" ", **{**asked, **wrong})
    for filter in (None, {}):
        with pytest.raises(InputError, match="the query is empty"):
            store.similarity_search(" ", filter=filter)


@pytest.mark.parametrize(
    ("metadatas", "said"),
    [
        ({"source": "a"}, "metadatas must be a list, got one dict"),
        ("source", "metadatas must be a list, got one string"),
        (7, "metadatas must be a list, got one int"),
        (["source"], r"metadatas\[0\] is 'source', must be a dict"),
    ],
)
def test_metadata_that_are_none_are_named(empty: M3VectorStore, metadatas: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        empty.add_texts(["x"], metadatas)


def test_a_document_of_a_numbered_id_is_filtered_by_it_as_text(empty: M3VectorStore) -> None:
    documents = [
        Document(id=id, page_content=id, metadata={"document_id": n}) for n, id in enumerate(("duck", "goose"))
    ]
    empty.add_documents(documents)
    assert empty.similarity_search("duck", filter={"document_id": "0"}) == documents[:1]
    with pytest.raises(InputError, match="a document's id is text, got 0: give '0'"):
        empty.delete(filter={"document_id": {"$ne": 0}})
    empty.delete(filter={"document_id": {"$ne": "0"}})
    assert empty.get_by_ids(["duck", "goose"]) == documents[:1]


def test_scores_are_on_copies(store: M3VectorStore) -> None:
    (document, score), *_ = store.similarity_search_with_score("ducks swim", k=2)
    hit = store.collection.search("ducks swim", k=1)[0]
    assert document.metadata["relevance_score"] == score == hit.score
    assert document.metadata["scores"]["colbert"] == hit.scores.colbert
    assert {key: document.metadata[key] for key in ("lang", "year", "tags")} == TEXTS["duck"][1]
    assert store.get_by_ids(["duck"]) == [by_id("duck")]


@pytest.mark.parametrize("options", [{}, {"mode": "dense"}, {"fusion": "rrf"}, {"fusion": "zscore"}, {"mode": "bm25"}])
def test_relevance_lies_between_0_and_1_in_the_order_of_scores(store: M3VectorStore, options: dict[str, Any]) -> None:
    plain = store.similarity_search_with_score("ducks swim pond", k=5, **options)
    found = store.similarity_search_with_relevance_scores("ducks swim pond", k=5, **options)
    scores = [score for _, score in found]
    assert ids([document for document, _ in found]) == ids([document for document, _ in plain])
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert [document.metadata["relevance_score"] for document, _ in found] == scores
    threshold = (scores[0] + scores[1]) / 2
    kept = store.similarity_search_with_relevance_scores("ducks swim pond", k=5, score_threshold=threshold, **options)
    assert kept == found[:1]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"lang": "de"}, {"ente"}),
        ({"lang": ["de", "zh"]}, {"ente", "鸭子 🦆/#?"}),
        ({"year": {"$gte": 2005, "$lt": 2010}}, {"goose", "ente"}),
        ({"$not": {"lang": "en"}}, {"ente", "鸭子 🦆/#?"}),
        ({"tags": "de"}, {"ente"}),
        ({"year": {"$exists": False}}, {"鸭子 🦆/#?"}),
        ({"lang": "fr"}, set()),
    ],
)
def test_a_filter_holds_in_every_search(store: M3VectorStore, filter: dict[str, Any], expected: set[str]) -> None:
    assert set(ids(store.similarity_search("pond", k=10, filter=filter, mode="dense"))) == expected
    vector = store.embeddings.embed_query("pond")
    assert set(ids(store.similarity_search_by_vector(vector, k=10, filter=filter))) == expected
    assert set(ids(store.max_marginal_relevance_search("pond", k=10, filter=filter, mode="dense"))) == expected
    assert set(ids(store.max_marginal_relevance_search_by_vector(vector, k=10, filter=filter))) == expected
    retriever = store.as_retriever(search_kwargs={"k": 10, "filter": filter, "mode": "dense"})
    assert set(ids(retriever.invoke("pond"))) == expected


def test_by_vector_is_mode_dense(store: M3VectorStore) -> None:
    vector = store.embeddings.embed_query("ducks swim")
    assert store.similarity_search_by_vector(vector, k=4) == store.similarity_search("ducks swim", k=4, mode="dense")
    by_vector = store.max_marginal_relevance_search_by_vector(vector, k=3, fetch_k=4, lambda_mult=0.4)
    assert by_vector == store.max_marginal_relevance_search("ducks swim", k=3, fetch_k=4, lambda_mult=0.4, mode="dense")


@pytest.mark.parametrize("mode", ["dense", "all", "lexical", "bm25"])
def test_mmr_chooses_among_the_best_of_the_mode_by_dense_vectors(store: M3VectorStore, mode: str) -> None:
    fetched = store.similarity_search("ducks swim on the pond", k=4, mode=mode)
    relevant = store.max_marginal_relevance_search("ducks swim on the pond", k=4, fetch_k=4, lambda_mult=1, mode=mode)
    assert set(ids(relevant)) == set(ids(fetched))
    dense = ids(store.similarity_search("ducks swim on the pond", k=10, mode="dense"))
    assert ids(relevant) == [id for id in dense if id in ids(fetched)]
    diverse = store.max_marginal_relevance_search("ducks swim on the pond", k=2, fetch_k=4, lambda_mult=0, mode=mode)
    assert diverse[0] == relevant[0]
    assert diverse == [by_id(id) for id in ids(diverse)]


def test_mmr_finds_at_least_k(store: M3VectorStore) -> None:
    assert len(store.max_marginal_relevance_search("ducks", k=4, fetch_k=1, mode="dense")) == 4


@pytest.mark.parametrize("options", [{"k": None}, {"k": 1.5}, {"k": True}, {"fetch_k": None}, {"fetch_k": "20"}])
def test_what_is_no_number_is_named(store: M3VectorStore, options: dict[str, Any]) -> None:
    (name,) = options
    vector = store.embeddings.embed_query("ducks")
    message = f"{name} must be a whole number, got "
    with pytest.raises(InputError, match=message):
        store.max_marginal_relevance_search("ducks", **options)
    with pytest.raises(InputError, match=message):
        store.max_marginal_relevance_search_by_vector(vector, **options)
    if name == "k":
        with pytest.raises(InputError, match=message):
            store.similarity_search_by_vector(vector, **options)


async def test_retrievers_of_every_kind_take_options_at_call_time(store: M3VectorStore) -> None:
    plain = store.as_retriever(search_kwargs={"k": 3})
    assert plain.invoke("ducks swim") == store.similarity_search("ducks swim", k=3)
    assert plain.invoke("ducks swim", k=1, mode="dense") == store.similarity_search("ducks swim", k=1, mode="dense")
    assert await plain.ainvoke("ducks swim", k=2) == store.similarity_search("ducks swim", k=2)
    mmr = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 5, "lambda_mult": 0.1})
    expected = store.max_marginal_relevance_search("ducks swim", k=2, fetch_k=5, lambda_mult=0.1)
    assert mmr.invoke("ducks swim") == await mmr.ainvoke("ducks swim") == expected
    strict = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99})
    assert ids(strict.invoke("ducks swim", k=5, score_threshold=0.0, mode="dense+bm25"))[:1] == ["duck"]
    assert "M3VectorStore" in (plain.tags or [])


def test_an_unknown_option_is_named_and_a_known_one_reaches_the_search(store: M3VectorStore) -> None:
    for call in (
        lambda **o: store.similarity_search("ducks", **o),
        lambda **o: store.similarity_search_with_score("ducks", **o),
        lambda **o: store.similarity_search_with_relevance_scores("ducks", **o),
        lambda **o: store.similarity_search_by_vector([0.0] * 32, **o),
        lambda **o: store.max_marginal_relevance_search("ducks", **o),
        lambda **o: store.max_marginal_relevance_search_by_vector([0.0] * 32, **o),
        lambda **o: store.as_retriever().invoke("ducks", **o),
        lambda **o: store.as_retriever(search_kwargs=o).invoke("ducks"),
        lambda **o: store.add_texts(["a"], **o),
        lambda **o: store.add_documents([], **o),
        lambda **o: store.delete(["x"], **o),
    ):
        with pytest.raises(InputError, match=r"unknown option top_k: .* takes "):
            call(top_k=3)
    with pytest.raises(InputError, match="give lambda_mult"):
        store.max_marginal_relevance_search("ducks", diversity=0.5)
    with pytest.raises(InputError, match="k must be at least 1"):
        store.similarity_search("ducks", k=0)
    with pytest.raises(ConfigurationError, match="unknown mode 'sideways'"):
        store.similarity_search("ducks", mode="sideways")
    by_words = store.similarity_search_with_score("ducks", k=1, mode="dense+lexical", alpha=0.0)
    assert by_words[0][0].metadata["scores"]["lexical"] > 0
    one_each = store.similarity_search("ducks swim", k=5, group_by_document=1)
    assert len(one_each) == len({document.id for document in one_each})
    assert store.similarity_search("ducks swim", k=5, score_threshold=10.0) == []


def test_a_mode_of_the_store_holds_unless_a_call_says_otherwise(store: M3VectorStore) -> None:
    lexical = M3VectorStore(collection=store.collection, mode="lexical")
    scores = lexical.similarity_search_with_score("ducks", k=1)[0][0].metadata["scores"]
    assert (scores["dense"], scores["lexical"] is not None) == (None, True)
    assert lexical.similarity_search_with_score("ducks", k=1, mode="dense")[0][0].metadata["scores"]["lexical"] is None


def test_ids_of_the_call_beat_those_of_the_documents(empty: M3VectorStore) -> None:
    given = [Document(id="own", page_content="a"), Document(page_content="b"), Document(id="kept", page_content="c")]
    before = [document.model_copy(deep=True) for document in given]
    made = empty.add_documents(given, ids=["mine", None, None], batch_size=1)
    assert (made[0], made[2]) == ("mine", "kept")
    assert len(made[1]) == 36
    assert given == before
    assert [document.page_content for document in empty.get_by_ids(made)] == ["a", "b", "c"]
    assert ids(empty.get_by_ids(["kept", "no such", "mine"])) == ["kept", "mine"]


def test_the_last_of_an_id_counts(empty: M3VectorStore) -> None:
    assert empty.add_texts(["first", "second"], ids=["a", "a"]) == ["a", "a"]
    assert [document.page_content for document in empty.get_by_ids(["a"])] == ["second"]


def test_an_empty_id_is_none(empty: M3VectorStore) -> None:
    made = empty.add_documents([Document(id="own", page_content="a"), Document(id="", page_content="b")], ids=["", ""])
    assert made[0] == "own"
    assert len(made[1]) == 36


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a text"], "document 0 is a str, must be a Document: make it one"),
        ([DOCUMENTS[0], None], "document 1 is a NoneType"),
        ("a text", "documents is a str, must be a list of Documents"),
        (DOCUMENTS[0], "documents is a Document, must be a list"),
        (None, "documents is a NoneType, must be a list"),
    ],
)
def test_what_is_no_document_is_named(empty: M3VectorStore, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        empty.add_documents(given)
    assert not empty.collection.exists


def test_texts_and_documents_may_come_from_a_generator(empty: M3VectorStore) -> None:
    made = empty.add_texts((text for text in ["a", "b"]), ({"n": n} for n in (1, 2)))
    assert [document.metadata for document in empty.get_by_ids(made)] == [{"n": 1}, {"n": 2}]
    assert empty.add_documents(document for document in DOCUMENTS) == list(TEXTS)  # type: ignore[arg-type]
    assert empty.get_by_ids(list(TEXTS)) == DOCUMENTS


def test_one_string_is_no_list_of_its_letters(empty: M3VectorStore) -> None:
    empty.add_texts(["one", "two", "three"], ids=["a", "b", "ab"])
    for call in (
        lambda: empty.delete("ab"),
        lambda: empty.get_by_ids("ab"),
        lambda: empty.add_documents(DOCUMENTS[:2], ids="ab"),
        lambda: empty.add_texts("ab"),
    ):
        with pytest.raises(InputError, match=r"must be a list.*, got one string: 'ab'; put it in a list"):
            call()
    assert len(empty.similarity_search("one two three ducks", k=10, mode="dense")) == 3


def test_an_empty_store_finds_nothing_and_nothing_added_makes_none(empty: M3VectorStore) -> None:
    assert empty.add_documents([]) == empty.add_texts([]) == []
    assert not empty.collection.exists
    assert empty.similarity_search("ducks") == empty.similarity_search_with_score("ducks") == []
    assert empty.similarity_search_with_relevance_scores("ducks") == []
    assert empty.similarity_search_by_vector([0.0] * 32) == empty.max_marginal_relevance_search("ducks") == []
    assert empty.max_marginal_relevance_search_by_vector([0.0] * 32) == empty.get_by_ids(["a"]) == []
    for call in ({}, {"ids": []}, {"ids": ["a"]}, {"filter": {"a": 1}}):
        assert empty.delete(**call) is True  # type: ignore[arg-type]


def test_what_cannot_be_stored_changes_nothing(empty: M3VectorStore) -> None:
    empty.add_texts(["kept"], ids=["a"])
    good = Document(id="b", page_content="good")
    for bad, message in (
        ([good, Document(id="c", page_content="x", metadata={"when": object()})], "metadata of 'when' are not JSON"),
        ([good, Document(id="c", page_content="\ud800")], "not valid Unicode"),
    ):
        with pytest.raises(InputError, match=message):
            empty.add_documents(bad, batch_size=1)
    with pytest.raises(InputError, match="1 documents and 2 ids"):
        empty.add_documents([good], ids=["a", "b"])
    with pytest.raises(InputError, match="an id is 7, a int"):
        empty.add_documents([good], ids=[7])  # type: ignore[list-item]
    with pytest.raises(InputError, match="2 texts and 1 metadatas"):
        empty.add_texts(["a", "b"], [{}])
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        empty.add_documents([good], batch_size=0)
    with pytest.raises(InputError, match="batch_size must be a whole number, got 'all'"):
        empty.add_documents([good], batch_size="all")  # type: ignore[arg-type]
    assert ids(empty.similarity_search("kept good x", k=10)) == ["a"]


def test_delete_by_ids_by_filter_and_all(empty: M3VectorStore) -> None:
    empty.add_documents(DOCUMENTS)
    assert empty.delete([]) is True
    assert empty.delete(["duck", "no such"]) is True
    assert empty.delete(filter={"lang": ["de", "zh"]}) is True
    assert set(ids(empty.similarity_search("on", k=10))) == {"goose", "train"}
    with pytest.raises(InputError, match="give one of them"):
        empty.delete(["goose"], filter={"lang": "en"})
    assert empty.delete() is True
    assert empty.similarity_search("on", k=10) == []
    assert empty.collection.documents() == []


@pytest.mark.parametrize("kind", ["edge", "chroma"])
def test_what_is_written_is_there_after_a_restart(tmp_path: Path, kind: str) -> None:
    index = tmp_path / "index" if kind == "edge" else f"chroma:{tmp_path / 'index'}"
    embedding = DeterministicFakeEmbedding(size=8)
    with M3VectorStore.from_documents(DOCUMENTS, embedding, index=index, settings=settings()) as store:
        before = store.similarity_search_with_score("ducks", k=5)
    with M3VectorStore(embedding, index=index, settings=settings()) as store:
        assert store.similarity_search_with_score("ducks", k=5) == before
        assert store.embeddings is embedding
        assert store.get_by_ids([document.id for document in DOCUMENTS if document.id]) == DOCUMENTS
        store.add_texts(["Ducks again."], ids=["duck"])
        assert store.get_by_ids(["duck"])[0].page_content == "Ducks again."


async def test_every_way_to_make_one_from_texts() -> None:
    embedding = DeterministicFakeEmbedding(size=8)
    texts, metadatas = ["a", "b"], [{"n": 1}, {"n": 2}]
    made = [
        M3VectorStore.from_texts(texts, embedding, metadatas, ids=["1", "2"]),
        await M3VectorStore.afrom_texts(texts, embedding, metadatas, ids=["1", "2"]),
        M3VectorStore.from_documents(DOCUMENTS[:2], embedding, ids=["1", "2"], batch_size=1),
        await M3VectorStore.afrom_documents(DOCUMENTS[:2], embedding, ids=["1", "2"]),
        M3VectorStore.from_texts(texts, collection=Collection(":memory:", encoder=HashEncoder()), ids=["1", "2"]),
    ]
    assert [ids(store.get_by_ids(["2", "1"])) for store in made] == [["2", "1"]] * 5
    assert M3VectorStore.from_texts([], embedding).similarity_search("a") == []


def test_a_failed_from_texts_leaves_no_lock(tmp_path: Path) -> None:
    embedding, index = DeterministicFakeEmbedding(size=8), tmp_path / "index"
    M3VectorStore.from_texts(["a"], embedding, ids=["1"], index=index, settings=settings()).close()
    with pytest.raises(InputError, match="not JSON"):
        M3VectorStore.from_texts(["a"], embedding, [{"x": object()}], index=index, settings=settings())
    with M3VectorStore(embedding, index=index, settings=settings()) as store:
        assert ids(store.get_by_ids(["1"])) == ["1"]


def test_a_given_collection_is_left_open_and_an_own_one_closed(tmp_path: Path) -> None:
    with Collection(tmp_path / "index", encoder=HashEncoder(), settings=settings()) as collection:
        with M3VectorStore(collection=collection) as store:
            store.add_texts(["Ducks."], ids=["a"])
        assert collection.get(["a"])[0].text == "Ducks."
    own = M3VectorStore(DeterministicFakeEmbedding(size=8), index=tmp_path / "own", settings=settings())
    own.add_texts(["a"], ids=["1"])
    with pytest.raises(IndexLockedError):
        QdrantEdgeStore.open(tmp_path / "own")
    own.close()
    own.close()
    with QdrantEdgeStore.open(tmp_path / "own") as other:
        assert [record.id for record in other.documents()] == ["1"]


def test_stores_on_one_folder_share_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = M3VectorStore.from_documents(DOCUMENTS[:2], DeterministicFakeEmbedding(size=8), index="index")
    again = M3VectorStore.from_documents(DOCUMENTS[:3], DeterministicFakeEmbedding(size=8), index=tmp_path / "index")
    with pytest.raises(IndexMismatchError, match="nothing was changed"):
        M3VectorStore(DeterministicFakeEmbedding(size=16), index="index")
    assert first.get_by_ids(["ente"]) == [by_id("ente")]
    words = M3VectorStore(DeterministicFakeEmbedding(size=8), index="index", mode="bm25", settings=Settings(top_k=1))
    assert ids(words.similarity_search("Enten")) == ["ente"]
    assert len(first.similarity_search("Enten")) == 3, "the mode of another store is its own"
    first.close()
    again.add_documents(DOCUMENTS[3:])
    words.close()
    assert again.get_by_ids(list(TEXTS)) == DOCUMENTS
    again.close()
    with Collection("index", settings=settings()) as collection:
        assert len(collection.documents()) == len(DOCUMENTS)


@pytest.mark.parametrize("langchain_first", [True, False])
def test_both_frameworks_share_one_folder(tmp_path: Path, langchain_first: bool) -> None:
    llama_index = pytest.importorskip("m3rag.llama_index", reason="llama-index-core is not installed")
    schema = pytest.importorskip("llama_index.core.schema")
    embedding, index = M3Embeddings(model="mini"), tmp_path / "index"
    nodes = [schema.TextNode(id_="node", text="Trains run on rails.")]
    if langchain_first:
        store = M3VectorStore.from_texts(["Ducks swim."], embedding, ids=["text"], index=index)
        other = llama_index.M3VectorStore(index=index)
        other.add(nodes)
    else:
        other = llama_index.M3VectorStore(index=index, model="mini")
        other.add(nodes)
        store = M3VectorStore.from_texts(["Ducks swim."], embedding, ids=["text"], index=index)
    assert sorted(node.node_id for node in other.get_nodes()) == ["node", "text"]
    assert ids(store.similarity_search("trains on rails", k=1)) == ["node"]
    other.client.close()
    assert len(store.similarity_search("trains on rails")) == 2
    store.close()


def test_contradictory_arguments_are_named() -> None:
    collection = Collection(":memory:", encoder=HashEncoder(), settings=settings())
    with pytest.raises(InputError, match="the collection has its own embedding and index: leave out embedding, index"):
        M3VectorStore(DeterministicFakeEmbedding(size=8), index="x", collection=collection)
    with pytest.raises(InputError, match="there is no embedding to encode with"):
        M3VectorStore()
    with pytest.raises(ConfigurationError, match="unknown mode 'sideways'"):
        M3VectorStore(collection=collection, mode="sideways")


def test_one_collection_whichever_door(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    text = "# Birds\n\n## Ducks\n\nDucks swim on ponds and eat water plants.\n"
    (folder / "ducks.md").write_text(text, encoding="utf-8")
    with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=settings()) as kb:
        kb.ingest(folder)
        store = M3VectorStore(collection=kb)
        (found,) = store.similarity_search("ducks eat plants", k=1)
        assert found.metadata["document_id"] == found.metadata["source"] == "ducks.md"
        assert found.metadata["headings"] == ["Birds"]
        assert text[found.metadata["start"] : found.metadata["end"]] == found.page_content
        store.add_documents([Document(id="g", page_content="Geese fly.", metadata={"source": "geese.txt", "page": 2})])
        for shown, id in (({"source": "ducks.md"}, found.id), ({"headings": "Birds"}, found.id), ({"page": 2}, "g")):
            assert ids(store.similarity_search("ducks", filter=shown)) == [id]
            assert ids(store.similarity_search("ducks", filter={"$not": shown})) == list({found.id, "g"} - {id})
    with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=settings()) as kb:
        assert [record.id for record in kb.documents()] == ["ducks.md", "geese.txt"]
        (hit,) = kb.search("geese fly", k=1)
        assert (hit.chunk.document_id, hit.chunk.page, hit.chunk.text) == ("geese.txt", 2, "Geese fly.")
        (retrieved,) = M3Retriever(knowledge_base=kb, k=1).invoke("geese fly")
        assert (retrieved.metadata["document_id"], retrieved.metadata["page"]) == ("geese.txt", 2)
        answer = kb.ask("Do geese fly?")
        assert {citation.document_id for citation in answer.citations} <= {"geese.txt"}
        M3VectorStore(collection=kb).delete(filter={"source": "geese.txt"})
        assert [record.id for record in kb.documents()] == ["ducks.md"]


def test_chunks_of_another_framework_say_where_they_stand(empty: M3VectorStore) -> None:
    empty.collection.upsert([Chunk("n1", "a.pdf", "Ducks.", 4, 10, 2, (), {"lang": "en", "m3rag:llama": {"x": 1}})])
    place = {"document_id": "a.pdf", "source": "a.pdf", "start": 4, "end": 10, "page": 2, "headings": []}
    assert empty.get_by_ids(["n1"]) == [Document(id="n1", page_content="Ducks.", metadata={"lang": "en", **place})]


def test_the_embeddings_of_a_collection_are_its_dense_leg(store: M3VectorStore) -> None:
    assert isinstance(store.embeddings, EncoderEmbeddings)
    texts = ["Ducks swim.", "Enten"]
    assert store.embeddings.embed_documents(texts) == HashEncoder().encode_documents(texts).dense.tolist()
    assert store.embeddings.embed_documents(iter(texts)) == store.embeddings.embed_documents(texts)  # type: ignore[arg-type]


def test_making_a_retriever_loads_no_model(tmp_path: Path) -> None:
    # A name that cannot be had: loading it would fail.
    collection = Collection(tmp_path / "index", model=str(tmp_path / "no-model"), settings=settings())
    assert M3VectorStore(collection=collection).as_retriever().tags == ["M3VectorStore", "EncoderEmbeddings"]
    assert "no-model" not in repr(M3VectorStore(collection=collection))


def test_m3_embeddings_give_all_three_legs_in_one_pass(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    encode = M3Encoder.encode_documents

    def counted(self: M3Encoder, texts: Sequence[str], **options: Any) -> Any:
        passes.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", counted)
    embedding = M3Embeddings(model=str(tiny_checkpoint), model_kwargs={"device": "cpu"})
    store = M3VectorStore(embedding, settings=settings())
    store.add_documents(DOCUMENTS)
    assert passes == [len(DOCUMENTS)]
    (best, _), *_ = store.similarity_search_with_score(TEXTS["train"][0], k=1)
    assert best.id == "train"
    assert all(best.metadata["scores"][leg] is not None for leg in ("dense", "lexical", "colbert"))
    assert store.embeddings is embedding
    by_vector = store.similarity_search_by_vector(embedding.embed_query("Ducks"), k=5)
    assert by_vector == store.similarity_search("Ducks", k=5, mode="dense")


def test_threads_may_share_a_store(empty: M3VectorStore) -> None:
    def work(n: int) -> list[str | None]:
        empty.add_texts([f"thread {n} text {i}" for i in range(5)], ids=[f"{n}-{i}" for i in range(5)])
        return ids(empty.similarity_search(f"thread {n}", k=50, filter={"document_id": f"{n}-0"}))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert found == [[f"{n}-0"] for n in range(8)]
    assert len(empty.similarity_search("text", k=100)) == 40
