from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import types
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from m3rag.encoder import CachedEncoder, M3Encoder, MemoryCache
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.llama_index import M3Embedding, M3SparseEmbedding
from m3rag.testing.llm_server import LLMServer

TEXTS = ["Ducks swim on ponds.", "", "Les canards nagent."]


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu", max_length=64)


@pytest.fixture
def sparse(encoder: M3Encoder) -> M3SparseEmbedding:
    return M3SparseEmbedding(encoder=encoder)


def weights(encoder: Any, texts: list[str]) -> list[dict[int, float]]:
    return [{int(k): v for k, v in one.items()} for one in encoder.encode_documents(texts).lexical_dicts()]


def test_the_weights_are_those_of_the_encoder(sparse: M3SparseEmbedding, encoder: M3Encoder) -> None:
    batch = sparse.get_text_embedding_batch(TEXTS)
    assert batch == weights(encoder, TEXTS)
    assert batch[1] == {}
    assert all(type(token) is int and type(value) is float for one in batch for token, value in one.items())
    assert sparse.get_text_embedding(TEXTS[0]) == pytest.approx(batch[0], rel=1e-4)
    (query,) = encoder.encode_queries([TEXTS[0]]).lexical_dicts()
    assert sparse.get_query_embedding(TEXTS[0]) == {int(token): value for token, value in query.items()}
    assert sparse.get_text_embedding_batch([]) == []


async def test_asynchronous_weights_are_the_same_and_do_not_block(
    sparse: M3SparseEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sparse.get_query_embedding("ducks"), sparse.get_text_embedding("ducks")
    beat = threading.Event()
    real = M3SparseEmbedding._weigh

    def slow(self: M3SparseEmbedding, *arguments: Any) -> Any:
        assert beat.wait(10), "the event loop was blocked by the encoder"
        return real(self, *arguments)

    monkeypatch.setattr(M3SparseEmbedding, "_weigh", slow)
    for call, wanted in (
        (sparse.aget_query_embedding("ducks"), expected[0]),
        (sparse.aget_text_embedding("ducks"), expected[1]),
        (sparse.aget_text_embedding_batch(["ducks"]), [expected[1]]),
    ):
        beat.clear()
        task = asyncio.create_task(call)
        await asyncio.sleep(0.02)
        beat.set()
        assert await task == wanted


def test_dense_and_sparse_share_one_pass(encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    real = M3Encoder.encode_documents

    def counted(self: M3Encoder, texts: list[str], **options: Any) -> Any:
        encoded.extend(texts)
        return real(self, texts, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", counted)
    cached = CachedEncoder(encoder, MemoryCache())
    dense, sparse = M3Embedding(encoder=cached), M3SparseEmbedding(encoder=cached)
    assert len(dense.get_text_embedding_batch(TEXTS)) == len(sparse.get_text_embedding_batch(TEXTS)) == 3
    assert sorted(encoded) == sorted(TEXTS)


def test_a_pickle_and_a_dict_restore_it(sparse: M3SparseEmbedding) -> None:
    stored = pickle.dumps(sparse)
    assert len(stored) < 10_000
    restored = pickle.loads(stored)  # noqa: S301
    assert restored._encoder is None
    expected = sparse.get_query_embedding(TEXTS[0])
    assert restored.get_query_embedding(TEXTS[0]) == pytest.approx(expected, rel=1e-5)
    fields = sparse.model_dump()
    assert fields.pop("class_name") == "M3SparseEmbedding"
    again = M3SparseEmbedding(**fields)
    assert again.get_query_embedding(TEXTS[0]) == pytest.approx(expected, rel=1e-5)


def test_qdrants_store_gets_columns(sparse: M3SparseEmbedding) -> None:
    batch = sparse.get_text_embedding_batch(TEXTS)
    tokens, values = sparse.sparse_doc_fn(TEXTS)
    assert [dict(zip(*one, strict=True)) for one in zip(tokens, values, strict=True)] == batch
    assert sparse.sparse_query_fn([]) == ([], [])


async def test_milvuss_store_gets_its_own_class(sparse: M3SparseEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(ABC):
        """As in llama-index-vector-stores-milvus, which no environment of ours can hold."""

        @abstractmethod
        def encode_queries(self, queries: list[str]) -> list[dict[int, float]]: ...

        @abstractmethod
        def encode_documents(self, documents: list[str]) -> list[dict[int, float]]: ...

    module: Any = types.ModuleType("llama_index.vector_stores.milvus.utils")
    module.BaseSparseEmbeddingFunction = Base
    monkeypatch.setitem(sys.modules, "llama_index.vector_stores.milvus", types.ModuleType("milvus"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    function = sparse.for_milvus()
    assert isinstance(function, Base)
    assert function.encode_documents(TEXTS) == sparse.get_text_embedding_batch(TEXTS)
    assert await function.async_encode_documents(TEXTS) == function.encode_documents(TEXTS)
    assert await function.async_encode_queries(["ducks"]) == function.encode_queries(["ducks"])


def test_without_milvus_the_error_names_the_package(sparse: M3SparseEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.vector_stores.milvus", None)
    with pytest.raises(ImportError, match="pip install llama-index-vector-stores-milvus"):
        sparse.for_milvus()


def test_a_model_without_the_leg_is_refused() -> None:
    with LLMServer() as server, OpenAIEncoder("m1", base_url=server.base_url) as dense:
        with pytest.raises(ConfigurationError, match="M3SparseEmbedding needs the leg lexical"):
            M3SparseEmbedding(encoder=dense).get_text_embedding("ducks")
        with pytest.raises(InputError, match="already loaded: leave out device"):
            M3SparseEmbedding(encoder=dense, device="cpu")
