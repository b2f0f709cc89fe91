"""LlamaIndex's classes over an encoder that gives dense vectors alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3rag import KnowledgeBase
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.llama_index import M3Embedding, M3Retriever
from m3rag.settings import Settings
from m3rag.testing.llm_server import LLMServer


@pytest.fixture(scope="module")
def encoder() -> Iterator[OpenAIEncoder]:
    with LLMServer() as server, OpenAIEncoder("m1", base_url=server.base_url) as running:
        yield running


async def test_the_retriever_searches_in_mode_dense(tmp_path: Path, encoder: OpenAIEncoder) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "ducks.md").write_text("Ducks swim on ponds.")
    (folder / "trains.txt").write_text("Trains run on rails.")
    with KnowledgeBase(tmp_path / "index", encoder=encoder, mode="dense", settings=Settings()) as kb:
        kb.ingest(folder)
        retriever = M3Retriever(kb, similarity_top_k=2)
        nodes = retriever.retrieve("ducks on ponds")
        assert [node.metadata["document_id"] for node in nodes] == ["ducks.md", "trains.txt"]
        assert nodes[0].metadata["scores"]["colbert"] is None
        assert await retriever.aretrieve("ducks on ponds") == nodes
        with pytest.raises(ConfigurationError, match=r"mode 'all' needs .* choose mode='dense'"):
            M3Retriever(kb, mode="all").retrieve("ducks")


async def test_the_embedding_shares_it(encoder: OpenAIEncoder) -> None:
    embedding = M3Embedding(encoder=encoder)
    assert embedding.model_name == "m1"
    texts = ["Ducks swim.", "Enten"]
    assert embedding.get_text_embedding_batch(texts) == encoder.encode_dense(texts, role="document").tolist()
    query = encoder.encode_dense(["Ducks"], role="query")[0].tolist()
    assert await embedding.aget_query_embedding("Ducks") == query
    with pytest.raises(InputError, match=r"encoder of m1 cannot be loaded again by its name"):
        pickle.dumps(embedding)
    with pytest.raises(InputError, match="already loaded: leave out device"):
        M3Embedding(encoder=encoder, device="cpu")
