from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from m3rag.encoder import CachedEncoder, M3Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.langchain import M3SparseEmbeddings
from m3rag.langchain.foreign import EmbeddingsEncoder

TEXTS = ["Ducks swim on the pond.", "", "Enten schwimmen 🦆", "Ducks swim on the pond."]


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def sparse(encoder: M3Encoder) -> M3SparseEmbeddings:
    return M3SparseEmbeddings(encoder=encoder)


def as_rows(lexical: Any) -> list[dict[int, float]]:
    dense = lexical.toarray()
    return [{int(i): float(row[i]) for i in np.flatnonzero(row)} for row in dense]


def test_the_weights_are_those_of_the_lexical_leg(encoder: M3Encoder, sparse: M3SparseEmbeddings) -> None:
    assert sparse.embed_documents(TEXTS) == as_rows(encoder.encode_documents(TEXTS).lexical)
    assert sparse.embed_query(TEXTS[0]) == as_rows(encoder.encode_queries(TEXTS[:1]).lexical)[0]
    assert sparse.embed_documents([]) == []
    assert sparse.embed_documents(TEXTS)[1] == {}
    assert all(type(token) is int and weight > 0 for token, weight in sparse.embed_query(TEXTS[0]).items())


async def test_asynchronous_and_small_batches_give_the_same(encoder: M3Encoder, sparse: M3SparseEmbeddings) -> None:
    weights = sparse.embed_documents(TEXTS)
    assert await sparse.aembed_documents(TEXTS) == weights
    assert await sparse.aembed_query("ducks") == sparse.embed_query("ducks")
    one_by_one = M3SparseEmbeddings(encoder=encoder, encode_kwargs={"batch_size": 1}).embed_documents(TEXTS)
    for some, others in zip(weights, one_by_one, strict=True):
        assert some.keys() == others.keys()
        assert np.allclose(list(some.values()), list(others.values()), atol=1e-4)


def test_dense_and_sparse_of_the_same_texts_cost_one_pass(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    encode = M3Encoder.encode_documents

    def counted(self: M3Encoder, texts: Sequence[str], **options: Any) -> Any:
        passes.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", counted)
    dense, sparse = M3SparseEmbeddings.with_dense(model=str(tiny_checkpoint), model_kwargs={"device": "cpu"})
    assert isinstance(dense.encoder, CachedEncoder)
    assert dense.encoder is sparse.encoder
    passes.clear()
    vectors = dense.embed_documents(TEXTS[:3])
    weights = sparse.embed_documents(TEXTS[:3])
    assert [count for count in passes if count] == [3]
    assert np.allclose(vectors, encode(dense.encoder.encoder, TEXTS[:3]).dense, atol=1e-5)
    assert weights[1] == {}


def test_a_pickle_holds_settings_only(sparse: M3SparseEmbeddings) -> None:
    stored = pickle.dumps(sparse)
    assert len(stored) < 5_000
    assert pickle.loads(stored).embed_query("ducks") == pytest.approx(sparse.embed_query("ducks"))  # noqa: S301


def test_what_cannot_be_used_is_told(sparse: M3SparseEmbeddings) -> None:
    with pytest.raises(ValueError, match=r"prompt.*which M3SparseEmbeddings cannot honour"):
        M3SparseEmbeddings(model="mini", encode_kwargs={"prompt": "x"})
    with pytest.raises(InputError, match="got one string"):
        sparse.embed_documents("ducks")  # type: ignore[arg-type]
    assert sparse.embed_documents(text for text in ["ducks"]) == sparse.embed_documents(["ducks"])  # type: ignore[arg-type]
    foreign = EmbeddingsEncoder(DeterministicFakeEmbedding(size=8))
    with pytest.raises(ConfigurationError, match="M3SparseEmbeddings needs the leg lexical"):
        M3SparseEmbeddings(encoder=foreign)


def test_langchain_qdrant_finds_by_dense_and_sparse_together(tiny_checkpoint: Path) -> None:
    qdrant = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")
    dense, sparse = M3SparseEmbeddings.with_dense(model=str(tiny_checkpoint), model_kwargs={"device": "cpu"})
    documents = [
        Document(page_content="Ducks swim on the pond.", metadata={"n": 1}),
        Document(page_content="Trains run on rails.", metadata={"n": 2}),
        Document(page_content="zebra crossing", metadata={"n": 3}),
    ]
    store = qdrant.QdrantVectorStore.from_documents(
        documents,
        dense,
        sparse_embedding=sparse.as_qdrant(),
        retrieval_mode=qdrant.RetrievalMode.HYBRID,
        location=":memory:",
        collection_name="ducks",
    )
    try:
        found = store.similarity_search("zebra crossing", k=3)
        assert found[0].metadata["n"] == 3
        assert len(found) == 3
        store.retrieval_mode = qdrant.RetrievalMode.SPARSE
        assert store.similarity_search("Trains run on rails.", k=1)[0].metadata["n"] == 2
    finally:
        store.client.close()


async def test_qdrants_vectors_are_the_weights(sparse: M3SparseEmbeddings) -> None:
    pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")
    adapter = sparse.as_qdrant()
    for vector, weights in zip(adapter.embed_documents(TEXTS), sparse.embed_documents(TEXTS), strict=True):
        assert dict(zip(vector.indices, vector.values, strict=True)) == weights
    assert await adapter.aembed_query("ducks") == adapter.embed_query("ducks")


def test_milvus_takes_the_weights_as_they_are(sparse: M3SparseEmbeddings) -> None:
    module = pytest.importorskip("langchain_milvus.utils.sparse", reason="langchain-milvus is not installed")
    adapter = sparse.as_milvus()
    assert isinstance(adapter, module.BaseSparseEmbedding)
    assert adapter.embed_documents(TEXTS) == sparse.embed_documents(TEXTS)
    assert adapter.embed_query(query="ducks") == sparse.embed_query("ducks")


def test_a_missing_package_is_named() -> None:
    code = """
import sys
sys.modules["langchain_qdrant"] = sys.modules["langchain_milvus"] = None
from m3rag.langchain import M3SparseEmbeddings
for method in (M3SparseEmbeddings.as_qdrant, M3SparseEmbeddings.as_milvus):
    try:
        method(None)
    except ImportError as error:
        print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == [
        "M3SparseEmbeddings.as_qdrant() needs langchain-qdrant: pip install langchain-qdrant",
        "M3SparseEmbeddings.as_milvus() needs langchain-milvus: pip install langchain-milvus",
    ]
