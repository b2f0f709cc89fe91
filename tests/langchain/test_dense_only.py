"""LangChain's classes over an encoder that gives dense vectors alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3rag import KnowledgeBase
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.langchain import M3Embeddings, M3Retriever
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
        retriever = M3Retriever(knowledge_base=kb, k=2)
        documents = retriever.invoke("ducks on ponds")
        assert [document.metadata["source"] for document in documents] == ["ducks.md", "trains.txt"]
        assert documents[0].metadata["scores"]["colbert"] is None
        assert await retriever.ainvoke("ducks on ponds") == documents
        with pytest.raises(ConfigurationError, match=r"mode 'all' needs .* choose mode='dense'"):
            retriever.invoke("ducks", mode="all")


async def test_the_embeddings_share_it(encoder: OpenAIEncoder) -> None:
    embeddings = M3Embeddings(encoder=encoder, encode_kwargs={"batch_size": 1})
    assert embeddings.model_name == "m1"
    texts = ["Ducks swim.", "", "Enten"]
    assert embeddings.embed_documents(texts) == encoder.encode_dense(texts, role="document").tolist()
    assert await embeddings.aembed_query("Ducks") == encoder.encode_dense(["Ducks"], role="query")[0].tolist()
    with pytest.raises(InputError, match=r"encoder of m1 cannot be loaded again by its name"):
        pickle.dumps(embeddings)
    with pytest.raises(ValueError, match="already loaded: leave out model_kwargs"):
        M3Embeddings(encoder=encoder, model_kwargs={"device": "cpu"})
