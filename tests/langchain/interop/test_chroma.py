from __future__ import annotations

import pytest
from langchain_core.documents import Document

from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.langchain import M3Embeddings
from m3rag.testing import HashEncoder

chroma = pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")

DOCUMENTS = [
    Document(id="ducks", page_content="Ducks swim on ponds.", metadata={"kind": "bird"}),
    Document(id="trains", page_content="Trains run on rails.", metadata={"kind": "machine"}),
    Document(id="boats", page_content="Boats swim on the water too.", metadata={"kind": "machine"}),
]


def test_chroma_keeps_and_finds_what_m3_embeds() -> None:
    store = chroma.Chroma(
        "m3rag_interop",
        embedding_function=M3Embeddings(encoder=CachedEncoder(HashEncoder(), MemoryCache())),
        collection_metadata={"hnsw:space": "ip"},
    )
    try:
        assert store.add_documents(DOCUMENTS) == ["ducks", "trains", "boats"]
        assert store.similarity_search("ducks on ponds", k=2) == [DOCUMENTS[0], DOCUMENTS[2]]
        assert [d.id for d in store.similarity_search("swim", k=1, filter={"kind": "machine"})] == ["boats"]
        (best, distance), *_ = store.similarity_search_with_score("Trains run on rails.", k=1)
        assert best.id == "trains"
        assert distance == pytest.approx(0, abs=1e-5)
        assert store.as_retriever(search_type="mmr", search_kwargs={"k": 3}).invoke("ducks on ponds")[0].id == "ducks"
    finally:
        store.delete_collection()
