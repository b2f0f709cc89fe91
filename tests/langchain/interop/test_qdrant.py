from __future__ import annotations

import pytest
from langchain_core.documents import Document

from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.langchain import M3SparseEmbeddings
from m3rag.testing import HashEncoder

qdrant = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")

TEXTS = ["Ducks swim on ponds.", "Trains run on rails.", "Boats swim on the water too."]


@pytest.mark.parametrize("mode", ["DENSE", "SPARSE", "HYBRID"])
def test_qdrant_finds_by_both_legs_of_one_model(mode: str) -> None:
    dense, sparse = M3SparseEmbeddings.with_dense(encoder=CachedEncoder(HashEncoder(), MemoryCache()))
    store = qdrant.QdrantVectorStore.from_documents(
        [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)],
        dense,
        sparse_embedding=sparse.as_qdrant(),
        retrieval_mode=qdrant.RetrievalMode[mode],
        location=":memory:",
    )
    try:
        assert [d.metadata["n"] for d in store.similarity_search("do ducks swim on ponds", k=2)] == [0, 2]
        assert [d.metadata["n"] for d in store.similarity_search("trains", k=1)] == [1]
    finally:
        store.client.close()
