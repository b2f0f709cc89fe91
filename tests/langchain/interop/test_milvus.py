"""langchain-milvus over Milvus Lite; LlamaIndex's store for Milvus needs another pymilvus, see tools/compat.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document

from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.langchain import M3SparseEmbeddings
from m3rag.testing import HashEncoder

pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
milvus = pytest.importorskip("langchain_milvus", reason="langchain-milvus is not installed")

TEXTS = ["Ducks swim on ponds.", "Trains run on rails.", "Boats swim on the water too."]

SPARSE = {"metric_type": "IP", "index_type": "SPARSE_INVERTED_INDEX", "params": {}}
"""Milvus Lite drops no small weights, which langchain-milvus asks for by default."""

DENSE = {"metric_type": "IP", "index_type": "FLAT", "params": {}}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "milvus.db")


def store_of(database: str, name: str, embeddings: Any, indexes: Any, **options: Any) -> Any:
    return milvus.Milvus.from_documents(
        [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)],
        embeddings,
        collection_name=name,
        connection_args={"uri": database},
        index_params=indexes,
        search_params=indexes,
        ids=["a", "b", "c"],
        drop_old=True,
        **options,
    )


def numbers(documents: list[Document]) -> list[int]:
    return [document.metadata["n"] for document in documents]


@pytest.fixture(scope="module")
def hybrid(database: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pymilvus and grpc
        dense, sparse = M3SparseEmbeddings.with_dense(encoder=CachedEncoder(HashEncoder(), MemoryCache()))
        fields = ["dense", "sparse"]
        yield store_of(database, "hybrid", [dense, sparse.as_milvus()], [DENSE, SPARSE], vector_field=fields)


@pytest.mark.filterwarnings("ignore")
async def test_milvus_finds_by_both_legs_of_one_model(hybrid: Any) -> None:
    assert numbers(hybrid.similarity_search("do ducks swim on ponds", k=2)) == [0, 2]
    assert numbers(hybrid.similarity_search("trains", k=1)) == [1]
    assert numbers(await hybrid.asimilarity_search("do ducks swim on ponds", k=2)) == [0, 2]
    assert numbers(hybrid.similarity_search("swim", k=2, expr="n > 0")) == [2, 1]
    assert numbers(hybrid.as_retriever(search_kwargs={"k": 1}).invoke("boats on the water")) == [2]


@pytest.mark.filterwarnings("ignore")
def test_milvus_scores_are_those_of_the_lexical_leg(database: str) -> None:
    encoder = HashEncoder()
    _, sparse = M3SparseEmbeddings.with_dense(encoder=CachedEncoder(encoder, MemoryCache()))
    store = store_of(database, "sparse", sparse.as_milvus(), SPARSE, vector_field="sparse")
    query = "do ducks swim on the ponds"
    found = {document.metadata["n"]: score for document, score in store.similarity_search_with_score(query, k=3)}
    weights = encoder.encode_queries([query]).lexical @ encoder.encode_documents(TEXTS).lexical.T
    expected = {n: score for n, score in enumerate(weights.toarray()[0].tolist()) if score > 0}
    assert found == pytest.approx(expected, abs=1e-5)
