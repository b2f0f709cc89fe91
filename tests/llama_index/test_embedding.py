from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

import m3rag.llama_index
from m3rag.encoder.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.llama_index import M3Embedding
from m3rag.testing import HashEncoder

TEXTS = ["Ducks swim on ponds.", "", "Les canards nagent.", "Enten schwimmen auf dem Teich im Park. " * 3]


@cache
def mini() -> M3Encoder:
    return M3Encoder("mini", device="cpu", max_length=64)


@pytest.fixture
def embedding() -> M3Embedding:
    return M3Embedding(encoder=mini())


def test_the_vectors_are_those_of_the_encoder(embedding: M3Embedding) -> None:
    expected = mini().encode_dense(TEXTS, role="document")
    batch = embedding.get_text_embedding_batch(TEXTS)
    assert np.allclose(batch, expected, atol=1e-6)
    assert all(type(value) is float for vector in batch for value in vector)
    assert np.allclose(embedding.get_text_embedding(TEXTS[0]), expected[0], atol=1e-5)
    query = embedding.get_query_embedding(TEXTS[0])
    assert query == mini().encode_dense([TEXTS[0]], role="query")[0].tolist()
    assert not np.allclose(query, expected[0], atol=1e-3)  # mini has a prefix for each role
    assert embedding.get_text_embedding_batch([]) == []


async def test_a_cache_of_passages_gives_no_question_a_passages_vector() -> None:
    plain, kept = M3Embedding(encoder=mini()), SimpleKVStore()
    embedding = M3Embedding(encoder=mini(), embeddings_cache=kept)
    query, passage = plain.get_query_embedding("ducks"), plain.get_text_embedding("ducks")
    for _ in range(2):
        assert embedding.get_query_embedding("ducks") == await embedding.aget_query_embedding("ducks") == query
        assert embedding.get_text_embedding("ducks") == await embedding.aget_text_embedding("ducks") == passage
    assert [list(one.values()) for one in kept.get_all("embeddings").values()] == [[passage]]
    restored = pickle.loads(pickle.dumps(embedding))  # noqa: S301
    assert restored.get_query_embedding("ducks") == query
    assert restored._encoder is not None  # loaded once, not for each question


def test_nodes_are_embedded_with_their_metadata(embedding: M3Embedding) -> None:
    nodes = embedding([TextNode(text="Ducks swim.", metadata={"title": "Ponds"})])
    expected = mini().encode_dense(["title: Ponds\n\nDucks swim."], role="document")[0]
    assert np.allclose(nodes[0].embedding, expected, atol=1e-6)


def test_it_loads_a_model_with_the_options_given() -> None:
    embedding = M3Embedding(model_name="mini", device="cpu", dtype="bfloat16", max_length=32)
    assert embedding._encoder is not None
    assert (embedding._encoder.dtype, embedding._encoder.max_length) == (torch.bfloat16, 32)
    assert len(embedding.get_query_embedding("ducks")) == embedding._encoder.info.dense_dim


def test_every_option_reaches_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("m3rag.encoder.loaded.loaded", lambda name, **options: asked.append({"name": name} | options))
    options = {
        "device": "cuda:1",
        "dtype": "float16",
        "max_length": 99,
        "batch_tokens": 1000,
        "cache_folder": "there",
        "local_files_only": True,
    }
    M3Embedding(**options)
    assert asked == [{"name": "BAAI/bge-m3"} | options]


def test_a_pickle_holds_settings_only_and_loads_on_first_use(
    embedding: M3Embedding, caplog: pytest.LogCaptureFixture
) -> None:
    stored = pickle.dumps(embedding)
    assert len(stored) < 10_000
    assert caplog.records == []
    restored = pickle.loads(stored)  # noqa: S301
    assert restored._encoder is None
    assert restored.get_query_embedding(TEXTS[3] * 9) == embedding.get_query_embedding(TEXTS[3] * 9)  # cut alike
    assert embedding._encoder is mini()  # pickling took nothing away


@pytest.mark.skipif(
    "rate_limiter" not in M3Embedding.model_fields, reason="this release of llama-index-core has no rate limiter"
)
def test_a_pickle_survives_parts_that_cannot_be_pickled() -> None:
    embedding = M3Embedding(encoder=mini(), rate_limiter=threading.Lock(), embed_batch_size=5)
    restored = pickle.loads(pickle.dumps(embedding))  # noqa: S301
    assert restored.rate_limiter is None
    assert restored.embed_batch_size == 5
    assert restored.max_length == 64


def test_a_dict_restores_it_and_holds_no_more_than_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    embedding = M3Embedding(encoder=mini(), embed_batch_size=7)
    stored = embedding.to_dict()
    assert stored["class_name"] == "M3Embedding"
    assert set(stored) == set(M3Embedding.model_fields) - {"callback_manager", "rate_limiter"} | {"class_name"}
    assert "hf_secret" not in embedding.to_json() + repr(embedding)
    restored = M3Embedding.from_dict(stored)
    assert restored.to_dict() == stored
    assert restored.get_query_embedding("ducks") == embedding.get_query_embedding("ducks")


async def test_any_encoder_of_the_protocol_will_do() -> None:
    encoder = HashEncoder()
    embedding = M3Embedding(encoder=encoder)
    (dense,) = encoder.encode_documents(["ducks swim"]).dense
    np.testing.assert_allclose(embedding.get_text_embedding("ducks swim"), dense)
    np.testing.assert_allclose(await embedding.aget_query_embedding("ducks swim"), dense)


def test_copies_share_the_model(embedding: M3Embedding) -> None:
    assert copy.deepcopy(embedding)._encoder is mini()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "mini"}, ValueError, "model"),
        ({"model_name": "mini", "max_length": 9999}, ConfigurationError, "max_length 9999 is out of range"),
        ({"model_name": "m3rag/no-such", "local_files_only": True}, ModelError, 'embedded model with model="mini"'),
        ({"encoder": "mini"}, InputError, "encoder is a str, must be an m3rag.M3Encoder"),
    ],
)
def test_what_cannot_be_honoured_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        M3Embedding(**arguments)


def test_options_that_contradict_a_shared_encoder_are_named() -> None:
    with pytest.raises(InputError, match="already loaded: leave out device, model_name"):
        M3Embedding(encoder=mini(), model_name="mini", device="cpu")


async def test_asynchronous_vectors_are_the_same_and_do_not_block(
    embedding: M3Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embedding.get_query_embedding("ducks"), embedding.get_text_embedding("ducks")
    real = M3Encoder.encode_dense
    beat = threading.Event()

    def slow(self: M3Encoder, *arguments: Any, **options: Any) -> Any:
        assert beat.wait(10), "the event loop was blocked by the encoder"
        return real(self, *arguments, **options)

    monkeypatch.setattr(M3Encoder, "encode_dense", slow)
    for call, wanted in (
        (embedding.aget_query_embedding("ducks"), expected[0]),
        (embedding.aget_text_embedding("ducks"), expected[1]),
        (embedding.aget_text_embedding_batch(["ducks"]), [expected[1]]),
    ):
        beat.clear()
        task = asyncio.create_task(call)
        await asyncio.sleep(0.05)
        beat.set()
        assert await task == wanted


def test_callbacks_see_the_calls() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    embedding = M3Embedding(encoder=mini(), callback_manager=CallbackManager([handler]))
    embedding.get_text_embedding_batch(["ducks"])
    assert len(handler.get_event_pairs()) == 1


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_without_llama_index_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["llama_index"] = None
import m3rag.llama_index
for name in m3rag.llama_index.__all__:
    try:
        getattr(m3rag.llama_index, name)
    except ImportError as error:
        print(error)
"""
    assert python(code).splitlines() == [
        f'm3rag.llama_index.{name} needs llama_index: pip install "m3rag[llama-index]"'
        for name in m3rag.llama_index.__all__
    ]


def test_importing_loads_neither_llama_index_nor_torch_before_they_are_needed() -> None:
    code = """
import sys, m3rag.llama_index
print("llama_index" in sys.modules)
from m3rag.llama_index import M3Embedding, M3Retriever
print("torch" in sys.modules)
"""
    assert python(code).split() == ["False", "False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'M3Nothing'"):
        m3rag.llama_index.M3Nothing  # noqa: B018
