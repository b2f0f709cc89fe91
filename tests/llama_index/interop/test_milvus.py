"""LlamaIndex's store for Milvus over Milvus Lite, in an environment of its own: see tools/compat.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.llama_index import M3Embedding, M3SparseEmbedding
from m3rag.testing import HashEncoder

pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
milvus = pytest.importorskip(
    "llama_index.vector_stores.milvus", reason="llama-index-vector-stores-milvus is not installed"
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of pymilvus and grpc

DOCUMENTS = [
    Document(id_="ducks", text="Ducks swim on ponds and eat water plants.", metadata={"kind": "bird"}),
    Document(id_="trains", text="Trains run on rails.", metadata={"kind": "machine"}),
    Document(id_="boats", text="Boats swim on the water.", metadata={"kind": "machine"}),
]


@pytest.fixture
def index(tmp_path: Path) -> Any:
    encoder = CachedEncoder(HashEncoder(), MemoryCache())
    store = milvus.MilvusVectorStore(
        uri=str(tmp_path / "milvus.db"),
        dim=32,
        similarity_metric="IP",
        enable_sparse=True,
        sparse_embedding_function=M3SparseEmbedding(encoder=encoder).for_milvus(),
    )
    return VectorStoreIndex.from_documents(
        DOCUMENTS,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=M3Embedding(encoder=encoder),
    )


def sources(nodes: list[Any]) -> list[str]:
    return [node.node.ref_doc_id for node in nodes]


async def test_milvus_searches_hybrid_with_our_dense_and_sparse(index: Any) -> None:
    def retriever(**options: Any) -> Any:
        return index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=2, **options)

    question = "what do ducks that swim on ponds and water eat"  # boats swim on water, trains do not
    assert sources(retriever().retrieve(question)) == ["ducks", "boats"]
    assert sources(await retriever().aretrieve(question)) == ["ducks", "boats"]
    machines = MetadataFilters(filters=[MetadataFilter(key="kind", value="machine")])
    assert sources(retriever(filters=machines).retrieve("boats that swim")) == ["boats", "trains"]
    assert sources(index.as_retriever(similarity_top_k=1).retrieve("trains on rails")) == ["trains"]
    index.delete_ref_doc("ducks")
    assert "ducks" not in sources(retriever().retrieve(question))


def test_the_sparse_vectors_are_those_of_our_model(index: Any) -> None:
    store = index.vector_store
    rows = store.client.query(store.collection_name, filter='kind == "bird"', output_fields=["sparse_embedding"])
    (weights,) = (row["sparse_embedding"] for row in rows)
    embedding = M3SparseEmbedding(encoder=CachedEncoder(HashEncoder(), MemoryCache()))
    assert weights == pytest.approx(embedding.get_text_embedding(DOCUMENTS[0].text), abs=1e-6)
