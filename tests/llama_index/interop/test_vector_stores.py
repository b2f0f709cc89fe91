"""LlamaIndex's own stores for Chroma and Qdrant with our embeddings, and its fusion with our retriever."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever

from m3rag.collection import Collection
from m3rag.encoder import CachedEncoder, M3Encoder, MemoryCache
from m3rag.llama_index import M3Embedding, M3Rerank, M3Retriever, M3SparseEmbedding, M3VectorStore
from m3rag.settings import Settings

DOCUMENTS = [
    Document(id_="ducks", text="Ducks swim on ponds and eat water plants.", metadata={"lang": "en"}),
    Document(id_="trains", text="Trains run on rails between the cities.", metadata={"lang": "en"}),
    Document(id_="brot", text="Brot wird aus Mehl, Wasser und Salz gebacken.", metadata={"lang": "de"}),
]


@pytest.fixture(scope="module")
def encoder() -> CachedEncoder:
    return CachedEncoder(M3Encoder("mini", device="cpu", max_length=64), MemoryCache())


def indexed(store: Any, embedding: Any) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        DOCUMENTS,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
        transformations=[SentenceSplitter()],
    )


def best(index: VectorStoreIndex, question: str, **options: Any) -> str | None:
    return index.as_retriever(similarity_top_k=1, **options).retrieve(question)[0].node.ref_doc_id


def test_chroma_finds_across_languages_with_our_embeddings(encoder: CachedEncoder, tmp_path: Path) -> None:
    chromadb = pytest.importorskip("chromadb")
    stores = pytest.importorskip("llama_index.vector_stores.chroma")
    client = chromadb.PersistentClient(str(tmp_path))
    index = indexed(
        stores.ChromaVectorStore(chroma_collection=client.create_collection("docs")), M3Embedding(encoder=encoder)
    )
    assert best(index, "What do ducks eat?") == "ducks"
    assert best(index, "How is bread made?") == "brot"
    index.delete_ref_doc("ducks")
    assert best(index, "What do ducks eat?") != "ducks"


@pytest.fixture
def qdrant() -> Iterator[Any]:
    pytest.importorskip("llama_index.vector_stores.qdrant")
    from qdrant_client import QdrantClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of qdrant-client's local mode: payload indexes have no effect
        client = QdrantClient(":memory:")
        yield client
        client.close()


def test_qdrant_searches_hybrid_with_our_dense_and_sparse(encoder: CachedEncoder, qdrant: Any) -> None:
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    sparse = M3SparseEmbedding(encoder=encoder)
    store = QdrantVectorStore(
        "docs",
        client=qdrant,
        enable_hybrid=True,
        sparse_doc_fn=sparse.sparse_doc_fn,
        sparse_query_fn=sparse.sparse_query_fn,
    )
    index = indexed(store, M3Embedding(encoder=encoder))
    for mode in ("default", "sparse", "hybrid"):
        assert best(index, "What do ducks eat?", vector_store_query_mode=mode, sparse_top_k=2) == "ducks"
    assert best(index, "How is bread made?") == "brot"
    texts = [node.get_content() for node in index.as_retriever(similarity_top_k=3).retrieve("ducks")]
    assert sorted(texts) == sorted(document.text for document in DOCUMENTS)


def test_our_store_with_our_embedding_and_with_fusion_of_retrievers(encoder: CachedEncoder) -> None:
    with Collection(":memory:", encoder=encoder, settings=Settings()) as collection:
        index = indexed(M3VectorStore(collection), M3Embedding(encoder=encoder))
        assert best(index, "How is bread made?", vector_store_query_mode="hybrid") == "brot"
        retrievers = [M3Retriever(collection, mode="dense"), M3Retriever(collection), index.as_retriever()]
        fusion = QueryFusionRetriever(
            retrievers, llm=MockLLM(), num_queries=1, mode="reciprocal_rerank", use_async=False, similarity_top_k=2
        )
        found = fusion.retrieve("What do ducks eat?")
        assert found[0].node.ref_doc_id == "ducks"
        assert len(found) == 2
        assert found[0].score == pytest.approx(3 / 60)  # first with all three, and one node for all three
        rerank = M3Rerank(encoder=encoder, top_n=1)
        engine = RetrieverQueryEngine.from_args(fusion, node_postprocessors=[rerank], llm=MockLLM())
        assert [node.node.ref_doc_id for node in engine.query("What do ducks eat?").source_nodes] == ["ducks"]
