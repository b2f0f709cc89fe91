from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError

from m3rag.encoder import CachedEncoder, M3Encoder, MemoryCache
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.langchain import M3Embeddings
from m3rag.testing import HashEncoder

TEXTS = ["Ducks swim on ponds.", "", "Les canards nagent.", "Enten schwimmen auf dem Teich im Park. " * 3]


@cache
def mini() -> M3Encoder:
    return M3Encoder("mini", device="cpu")


@pytest.fixture
def embeddings() -> M3Embeddings:
    return M3Embeddings(encoder=mini())


class TestUnitSuite(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "mini"}


class TestIntegrationSuite(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": mini()}


def test_the_vectors_are_those_of_the_encoder(embeddings: M3Embeddings) -> None:
    expected = mini().encode_dense(TEXTS, role="document")
    assert np.allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
    assert embeddings.embed_query(TEXTS[0]) == mini().encode_dense([TEXTS[0]], role="query")[0].tolist()
    assert not np.allclose(embeddings.embed_query(TEXTS[0]), expected[0], atol=1e-3)  # mini has a prefix for each role
    assert embeddings.embed_documents([]) == []


def test_swapping_the_class_name_of_hugging_face_embeddings_is_enough() -> None:
    embeddings = M3Embeddings(
        model_name="mini",
        cache_folder=None,
        model_kwargs={"device": "cpu", "trust_remote_code": True, "model_kwargs": {"torch_dtype": torch.bfloat16}},
        encode_kwargs={"normalize_embeddings": False, "batch_size": 2},
        query_encode_kwargs={"normalize_embeddings": True},
        multi_process=False,
        show_progress=False,
    )
    assert embeddings.encoder is not None
    assert embeddings.encoder.dtype == torch.bfloat16
    vectors = np.array(embeddings.embed_documents(TEXTS))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(embeddings.embed_query("ducks")), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "torch.float32", torch.float32])
def test_a_dtype_may_be_written_in_every_usual_way(dtype: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("m3rag.encoder.loaded.loaded", lambda name, **options: asked.append({"name": name} | options))
    M3Embeddings(model="some/model", cache_folder="there", model_kwargs={"dtype": dtype, "local_files_only": True})
    expected = {"name": "some/model", "cache_folder": "there", "dtype": "float32", "local_files_only": True}
    assert asked == [expected]


def test_batch_size_bounds_what_the_encoder_is_handed(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = M3Embeddings(encoder=mini(), encode_kwargs={"batch_size": 3})
    sizes: list[int] = []
    real = M3Encoder.encode_dense

    def counting(self: M3Encoder, texts: list[str], **options: Any) -> Any:
        sizes.append(len(texts))
        return real(self, texts, **options)

    monkeypatch.setattr(M3Encoder, "encode_dense", counting)
    found = embeddings.embed_documents(TEXTS * 2)
    assert sizes == [3, 3, 2]
    assert np.allclose(found, real(mini(), TEXTS * 2, role="document"), atol=1e-5)  # in the order given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modell": "mini"}, "modell"),
        ({"model_kwargs": {"devise": "cpu"}}, "model_kwargs holds 'devise'.*Allowed are device, dtype"),
        ({"model_kwargs": {"model_kwargs": {"attn": 1}}}, r"model_kwargs\['model_kwargs'\] holds 'attn'"),
        ({"model_kwargs": {"dtype": "float32", "model_kwargs": {"dtype": "float16"}}}, "more than once"),
        ({"model_kwargs": {"revision": "abc"}}, "hf download --revision"),
        ({"encode_kwargs": {"prompt": "query: "}}, "holds 'prompt'.*leave it out.*Allowed are batch_size"),
        ({"query_encode_kwargs": {"prompt_name": "query"}}, "holds 'prompt_name'.*leave it out"),
        ({"encode_kwargs": {"truncate_dim": 64}}, "not trained to be cut"),
        ({"encode_kwargs": {"show_progress_bar": True}}, r"M3Embeddings\(show_progress=True\)"),
        ({"encode_kwargs": {"batch_size": 0}}, "batch_size must be a whole number from 1, got 0"),
        ({"multi_process": True}, "multi_process=True is not supported.*one process a device"),
        ({"encoder": "mini"}, "encoder is a str, must be an m3rag.M3Encoder"),
    ],
)
def test_what_cannot_be_honoured_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        M3Embeddings(**{"model": "mini"} | arguments if "encoder" not in arguments else arguments)


async def test_any_encoder_of_the_protocol_will_do() -> None:
    encoder = HashEncoder()
    embeddings = M3Embeddings(encoder=encoder)  # type: ignore[arg-type]
    dense = encoder.encode_documents(["ducks swim", ""]).dense
    np.testing.assert_allclose(embeddings.embed_documents(["ducks swim", ""]), dense)
    np.testing.assert_allclose(await embeddings.aembed_query("ducks swim"), dense[0])
    with pytest.raises(InputError, match="cannot be loaded again by its name"):
        pickle.dumps(embeddings)


def test_options_that_contradict_a_shared_encoder_are_named() -> None:
    with pytest.raises(ValueError, match="already loaded: leave out model_kwargs, model_name"):
        M3Embeddings(encoder=mini(), model="mini", model_kwargs={"device": "cpu"})


def test_a_missing_model_is_told_at_once_with_the_way_to_mini() -> None:
    with pytest.raises(ModelError, match='choose the embedded model with model="mini"'):
        M3Embeddings(model="m3rag/there-is-no-such-model", model_kwargs={"local_files_only": True})
    with pytest.raises(ConfigurationError, match="max_length 9999 is out of range"):
        M3Embeddings(model="mini", model_kwargs={"max_length": 9999})


def test_the_default_model_is_bge_m3() -> None:
    assert M3Embeddings.model_fields["model_name"].default == "BAAI/bge-m3"


def test_bad_texts_are_named(embeddings: M3Embeddings) -> None:
    with pytest.raises(InputError, match="got one string: 'ducks'"):
        embeddings.embed_documents("ducks")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        embeddings.embed_documents(["ducks", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="texts is a NoneType, must be a list of strings"):
        embeddings.embed_documents(None)  # type: ignore[arg-type]


def test_texts_may_come_from_a_generator(embeddings: M3Embeddings) -> None:
    texts = ["Ducks swim.", "Enten"]
    assert embeddings.embed_documents(text for text in texts) == embeddings.embed_documents(texts)  # type: ignore[arg-type]


def test_a_pickle_holds_settings_only_and_comes_back_the_same(embeddings: M3Embeddings) -> None:
    stored = pickle.dumps(embeddings)
    assert len(stored) < 5_000
    restored = pickle.loads(stored)  # noqa: S301
    assert restored.encoder is None
    assert restored.embed_query("ducks") == embeddings.embed_query("ducks")
    assert restored.encoder.max_length == mini().max_length


def test_copies_share_the_model(embeddings: M3Embeddings) -> None:
    assert copy.deepcopy(embeddings).encoder is embeddings.encoder


def test_serialised_it_shows_settings_and_no_weights(embeddings: M3Embeddings) -> None:
    assert set(embeddings.model_dump()) == set(M3Embeddings.model_fields) - {"encoder"}
    assert "M3Encoder" not in repr(embeddings)
    assert embeddings.model_name == "mini"


def test_progress_goes_to_stderr_and_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    M3Embeddings(encoder=mini()).embed_documents(TEXTS)
    assert capsys.readouterr() == ("", "")
    M3Embeddings(encoder=mini(), show_progress=True).embed_documents(TEXTS)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Embedding" in shown.err
    assert "100%" in shown.err


@pytest.mark.parametrize("call", ["aembed_documents", "aembed_query"])
async def test_the_event_loop_goes_on_while_texts_are_embedded(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = threading.Event()
    encode = M3Encoder.encode_dense

    def waiting(*arguments: Any, **options: Any) -> Any:
        assert beat.wait(10), "the event loop was blocked by the forward pass"
        return encode(*arguments, **options)

    monkeypatch.setattr(M3Encoder, "encode_dense", waiting)
    embed = getattr(M3Embeddings(encoder=mini()), call)
    under_way = asyncio.create_task(embed(TEXTS if call == "aembed_documents" else TEXTS[0]))
    await asyncio.sleep(0.05)
    beat.set()
    assert await under_way


async def test_asynchronous_vectors_are_the_same(embeddings: M3Embeddings) -> None:
    many = await asyncio.gather(*(embeddings.aembed_query("ducks") for _ in range(4)))
    assert all(vector == embeddings.embed_query("ducks") for vector in many)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_without_langchain_the_error_names_the_extra() -> None:
    import m3rag.langchain

    code = """
import sys
sys.modules["langchain_core"] = None
import m3rag.langchain
for name in m3rag.langchain.__all__:
    try:
        getattr(m3rag.langchain, name)
    except ImportError as error:
        print(error)
"""
    told = python(code).splitlines()
    assert told == [
        f'm3rag.langchain.{name} needs langchain_core: pip install "m3rag[langchain]"'
        for name in m3rag.langchain.__all__
    ]


def test_importing_loads_neither_langchain_nor_torch_before_they_are_needed() -> None:
    code = """
import sys, m3rag.langchain
print("langchain_core" in sys.modules)
from m3rag.langchain import M3Embeddings, M3Retriever
print("torch" in sys.modules)
"""
    assert python(code).split() == ["False", "False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import m3rag.langchain

    with pytest.raises(AttributeError, match="no attribute 'M3Nothing'"):
        m3rag.langchain.M3Nothing  # noqa: B018


def test_a_cached_encoder_may_be_shared(tiny_checkpoint: Path) -> None:
    plain = M3Encoder(str(tiny_checkpoint), device="cpu")
    cached = CachedEncoder(plain, MemoryCache())
    embeddings = M3Embeddings(encoder=cached)
    first = embeddings.embed_documents(TEXTS)
    assert embeddings.embed_documents(TEXTS) == first
    assert cached.cache.stats().hits >= len(set(TEXTS))
    again = pickle.loads(pickle.dumps(embeddings))  # noqa: S301
    assert np.allclose(again.embed_documents(TEXTS), first, atol=1e-5)


def test_an_encoder_with_options_of_its_own_is_not_pickled(tiny_checkpoint: Path) -> None:
    embeddings = M3Embeddings(encoder=M3Encoder(str(tiny_checkpoint), device="cpu", pooling="mean"))
    with pytest.raises(InputError, match="cannot be loaded again by its name"):
        pickle.dumps(embeddings)


def test_a_token_in_the_wrong_place_is_not_shown() -> None:
    with pytest.raises(ValidationError, match="set HF_TOKEN in the environment") as raised:
        M3Embeddings(model="mini", model_kwargs={"token": "hf_secret"})
    assert "hf_secret" not in str(raised.value)
