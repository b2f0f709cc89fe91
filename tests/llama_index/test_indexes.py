"""LlamaIndex's own machinery over M3VectorStore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3rag import KnowledgeBase
from m3rag.collection import Collection
from m3rag.errors import ConfigurationError
from m3rag.langchain import M3Retriever as LangChainRetriever
from m3rag.llama_index import M3NodeParser, M3Retriever, M3VectorStore, StoreEmbedding
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

DUCKS = Document(id_="ducks", text="Ducks swim on ponds.", metadata={"lang": "en", "title": "Birds"})
TRAINS = Document(id_="trains", text="Trains run on rails.", metadata={"lang": "en"})
ENTEN = Document(id_="enten", text="Enten schwimmen auf dem Teich.", metadata={"lang": "de"})


class WordEmbedding(BaseEmbedding):
    """Another embedding model, of 32 dimensions."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = HashEncoder().encode_documents([text]).dense[0].tolist()
        return vector


@pytest.fixture
def store() -> Iterator[M3VectorStore]:
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        yield M3VectorStore(collection)


def indexed(store: M3VectorStore, *documents: Document) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        list(documents),
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=store.embed_model,
        transformations=[SentenceSplitter()],
    )


def sources(nodes: Any) -> list[str | None]:
    return [node.node.ref_doc_id for node in nodes]


def test_an_index_finds_by_every_mode_and_with_filters(store: M3VectorStore) -> None:
    index = indexed(store, DUCKS, TRAINS, ENTEN)
    for mode in ("default", "sparse", "hybrid", "text_search", "mmr"):
        retriever = index.as_retriever(similarity_top_k=1, vector_store_query_mode=mode)
        (found,) = retriever.retrieve("do ducks swim?")
        assert (found.node.ref_doc_id, found.text) == ("ducks", DUCKS.text)
        assert found.score is not None
        assert found.metadata == DUCKS.metadata
    german = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")])
    assert sources(index.as_retriever(similarity_top_k=9, filters=german).retrieve("ducks")) == ["enten"]
    kept = index.as_retriever(similarity_top_k=9, doc_ids=["trains", "enten"]).retrieve("ducks")
    assert sorted(map(str, sources(kept))) == ["enten", "trains"]


async def test_an_index_finds_asynchronously(store: M3VectorStore) -> None:
    index = indexed(store, DUCKS, TRAINS)
    retriever = index.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid")
    assert sources(await retriever.aretrieve("do ducks swim?")) == ["ducks"]


def test_documents_are_inserted_refreshed_and_deleted(store: M3VectorStore) -> None:
    index = indexed(store, DUCKS, TRAINS)
    index.insert(ENTEN)
    changed = Document(id_="trains", text="Trains are late today.", metadata={"lang": "en"})
    assert index.refresh_ref_docs([DUCKS, changed, ENTEN]) == [False, True, False]
    assert sorted(node.get_content() for node in store.get_nodes()) == sorted([DUCKS.text, ENTEN.text, changed.text])
    index.update_ref_doc(Document(id_="ducks", text="Ducks fly."))
    index.delete_ref_doc("enten", delete_from_docstore=True)
    assert sorted(node.get_content() for node in store.get_nodes()) == ["Ducks fly.", "Trains are late today."]
    index.insert_nodes([TextNode(id_="loose", text="A loose node.")])
    index.delete_nodes(["loose"])
    assert len(store.get_nodes()) == 2


def test_an_index_is_opened_again_from_the_store_alone(store: M3VectorStore, tmp_path: Path) -> None:
    index = indexed(store, DUCKS, TRAINS)
    reopened = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    assert sources(reopened.as_retriever(similarity_top_k=1).retrieve("ducks swim")) == ["ducks"]
    index.storage_context.persist(tmp_path)
    context = StorageContext.from_defaults(persist_dir=str(tmp_path), vector_store=store)
    loaded: Any = load_index_from_storage(context, embed_model=store.embed_model)
    assert sources(loaded.as_retriever(similarity_top_k=1).retrieve("ducks swim")) == ["ducks"]
    assert loaded.refresh_ref_docs([DUCKS]) == [False]


def test_a_pipeline_with_a_docstore_upserts(store: M3VectorStore) -> None:
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), store.embed_model], vector_store=store, docstore=SimpleDocumentStore()
    )
    assert len(pipeline.run(documents=[DUCKS, TRAINS])) == 2
    assert pipeline.run(documents=[DUCKS, TRAINS]) == []
    changed = Document(id_="ducks", text="Ducks fly south.")
    assert len(pipeline.run(documents=[changed, TRAINS])) == 1
    assert sorted(node.get_content() for node in store.get_nodes()) == ["Ducks fly south.", TRAINS.text]


async def test_a_pipeline_runs_asynchronously_with_our_parser(store: M3VectorStore) -> None:
    parser = M3NodeParser(encoder=HashEncoder(), chunk_tokens=8, overlap_tokens=0)
    pipeline = IngestionPipeline(transformations=[parser, store.embed_model], vector_store=store)
    text = "Ducks swim on ponds all day. Trains run on rails all night long. Geese fly."
    nodes = await pipeline.arun(documents=[Document(id_="d", text=text)])
    assert len(nodes) > 1
    for chunk in store.client.store.chunks_of("d"):
        assert text[chunk.start : chunk.end] == chunk.text
    assert store.get_nodes([nodes[0].node_id])[0].next_node.node_id == nodes[1].node_id


def test_another_model_brings_its_embeddings() -> None:
    store = M3VectorStore(index=":memory:", dense_dim=32)
    index = VectorStoreIndex.from_documents(
        [DUCKS, TRAINS],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=WordEmbedding(),
        transformations=[SentenceSplitter()],
    )
    for mode in ("default", "hybrid", "text_search"):
        found = index.as_retriever(similarity_top_k=1, vector_store_query_mode=mode).retrieve("ducks swim")
        assert sources(found) == ["ducks"]
    # Its vectors are of text and metadata together, as everywhere in LlamaIndex.
    assert found[0].metadata == DUCKS.metadata


def test_one_collection_through_every_door(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "geese.md").write_text("# Birds\n\nGeese fly south in autumn.\n", encoding="utf-8")
    with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=Settings()) as kb:
        kb.ingest(tmp_path / "files")
        store = M3VectorStore(kb)
        indexed(store, DUCKS)
        assert {document.id for document in kb.documents()} == {"geese.md", "ducks"}
        assert kb.search("ducks swim", k=1)[0].chunk.text == DUCKS.text
        assert "ducks" in [citation.document_id for citation in kb.ask("do ducks swim on ponds?").citations]
        (geese,) = [node for node in store.get_nodes() if node.ref_doc_id == "geese.md"]
        assert geese.metadata["document_id"] == "geese.md"
        assert geese.metadata["headings"] == ["Birds"]
        (document,) = LangChainRetriever(knowledge_base=kb, k=1).invoke("ducks swim")
        assert document.page_content == DUCKS.text
        assert document.metadata["lang"] == "en"
        assert not [key for key in document.metadata if key.startswith("m3rag")]
        assert M3Retriever(kb, similarity_top_k=1).retrieve("geese fly")[0].metadata["document_id"] == "geese.md"


def test_the_embedding_that_embeds_nothing_refuses_questions() -> None:
    embedding = StoreEmbedding()
    assert embedding.get_text_embedding_batch(["a", "b"]) == [[0.0], [0.0]]
    assert StoreEmbedding.from_dict(embedding.to_dict()).to_dict() == embedding.to_dict()
    with pytest.raises(ConfigurationError, match="with another store use M3Embedding"):
        embedding.get_query_embedding("ducks")
