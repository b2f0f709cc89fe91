from __future__ import annotations

import json
import pickle
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.encoder import CachedEncoder, MemoryCache
from m3rag.encoder.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError

TEXTS = ["ducks swim", "", "a much longer text about ducks that swim on ponds " * 9, "🦆", "ducks swim"]


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu")


def test_no_texts_give_an_empty_output(encoder: M3Encoder) -> None:
    output = encoder.encode_documents([])
    assert len(output) == 0
    assert output.dense.shape == (0, 64)
    assert output.lexical.shape == (0, encoder.info.vocab_size)
    assert output.colbert.shape == (0, 64)


def test_order_is_kept_and_equal_texts_are_equal(encoder: M3Encoder) -> None:
    output = encoder.encode_documents(TEXTS)
    assert np.allclose(output.dense[0], output.dense[4], atol=1e-6)
    for i, text in enumerate(TEXTS):
        assert np.allclose(encoder.encode_documents([text]).dense[0], output.dense[i], atol=1e-5)


def test_colbert_is_half_precision_by_default(encoder: M3Encoder) -> None:
    assert encoder.encode_documents(TEXTS).colbert.dtype == np.float16


def test_dense_alone_is_the_same_dense(encoder: M3Encoder) -> None:
    assert np.array_equal(encoder.encode_dense(TEXTS, role="document"), encoder.encode_documents(TEXTS).dense)


def test_progress_counts_every_text_once(encoder: M3Encoder) -> None:
    done: list[int] = []
    encoder.encode_documents(TEXTS * 10, progress=done.append)
    assert sum(done) == len(TEXTS) * 10


def test_threads_share_an_encoder(encoder: M3Encoder) -> None:
    expected = encoder.encode_documents(TEXTS).dense
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode_documents(TEXTS).dense, range(8)):
            assert np.array_equal(found, expected)


def test_another_process_gets_the_same_encoder(tiny_checkpoint: Path) -> None:
    options: dict[str, Any] = {
        "device": "cpu",
        "max_length": 9,
        "pooling": "mean",
        "truncate_dim": 8,
        "normalize": False,
    }
    encoder = M3Encoder(tiny_checkpoint, **options)
    text = "ducks swim and dive in the water of the lake"
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert again is not encoder
    assert again.info == encoder.info
    before, after = encoder.encode_documents([text]), again.encode_documents([text])
    assert np.array_equal(before.dense, after.dense)
    assert np.array_equal(before.colbert, after.colbert)
    assert len(pickle.dumps(again)) < 2_000


def test_windows_are_tokenised_ahead_and_change_nothing(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    expected = encoder.encode_documents(TEXTS * 5)
    done: list[int] = []
    narrow = M3Encoder(str(tiny_checkpoint), device="cpu", batch_tokens=2)
    found = narrow.encode_documents(TEXTS * 5, progress=done.append)
    assert sum(done) == len(done) == len(TEXTS) * 5
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.abs(found.dense - expected.dense).max() <= 1e-5
    assert abs(found.lexical - expected.lexical).max() <= 1e-5
    assert np.abs(found.colbert - expected.colbert).max() <= 1e-3
    assert np.abs(narrow.encode_dense(TEXTS * 5, role="query") - expected.dense).max() <= 1e-5


def test_cut_texts_are_counted_and_told_of(encoder: M3Encoder, caplog: pytest.LogCaptureFixture) -> None:
    before = encoder.truncated_texts
    output = encoder.encode_documents(TEXTS, max_length=16)
    assert np.diff(output.offsets).max() == 15
    assert encoder.truncated_texts == before + 1
    assert "1 of 5 texts are longer than max_length=16 tokens and were cut" in caplog.text
    caplog.clear()
    encoder.encode_documents(TEXTS * 500, max_length=16)  # in several windows
    assert encoder.truncated_texts == before + 501
    assert [record.getMessage()[:14] for record in caplog.records] == ["500 of 2500 te"]
    with pytest.raises(ConfigurationError, match=r"max_length 8193 is out of range .* 3 to 8192"):
        encoder.encode_documents(TEXTS, max_length=8193)


def test_texts_may_be_any_sequence(encoder: M3Encoder) -> None:
    expected = encoder.encode_documents(TEXTS)
    assert np.array_equal(encoder.encode_documents(deque(TEXTS)).colbert, expected.colbert)
    assert np.array_equal(encoder.encode_dense(deque(TEXTS), role="document"), expected.dense)


def test_tokens_are_those_of_the_token_vectors(encoder: M3Encoder) -> None:
    for text in TEXTS:
        output = encoder.encode_documents([text])
        ids, spans = encoder.tokens(text)
        weights = encoder.token_weights(text)
        assert len(ids) == len(spans) == len(weights) == len(output.colbert)
        lexical = {int(t): float(w) for t, w in zip(output.lexical.indices, output.lexical.data, strict=True)}
        for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            assert weight <= lexical.get(token, 0.0) + 1e-6 or token in encoder.tokenizer.unused_ids


def test_instructions_steer_but_are_not_found(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    instructed = M3Encoder(str(tiny_checkpoint), device="cpu", query_instruction="Find ducks:")
    plain, steered = encoder.encode_queries(["swim on ponds"]), instructed.encode_queries(["swim on ponds"])
    assert steered.colbert.shape == plain.colbert.shape
    assert not np.allclose(steered.dense, plain.dense, atol=1e-3)
    assert set(steered.lexical.indices) <= {int(i) for i in encoder.tokens("swim on ponds")[0]}
    whole = encoder.encode_queries(["Find ducks: swim on ponds"])
    assert np.abs(whole.dense - steered.dense).max() <= 1e-5
    assert np.array_equal(instructed.encode_documents(TEXTS).dense, encoder.encode_documents(TEXTS).dense)


def test_the_dense_vector_may_be_cut_and_left_as_it_is(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    raw = M3Encoder(str(tiny_checkpoint), device="cpu", normalize=False, colbert_dtype="float32")
    short = M3Encoder(str(tiny_checkpoint), device="cpu", truncate_dim=16)
    texts = [text for text in TEXTS if text]
    full, unscaled, cut = (e.encode_documents(texts) for e in (encoder, raw, short))
    assert cut.dense.shape == (len(texts), 16)
    assert short.info.dense_dim == 16
    lengths = np.linalg.norm(unscaled.dense, axis=1, keepdims=True)
    assert not np.allclose(lengths, 1, atol=0.1)
    assert np.abs(unscaled.dense / lengths - full.dense).max() <= 1e-5
    leading = unscaled.dense[:, :16]
    assert np.abs(leading / np.linalg.norm(leading, axis=1, keepdims=True) - cut.dense).max() <= 1e-5
    scale = np.linalg.norm(unscaled.colbert, axis=1, keepdims=True)
    assert np.abs(unscaled.colbert / scale - full.colbert).max() <= 1e-3


def test_options_that_change_the_numbers_change_the_fingerprint(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    variants: list[dict[str, Any]] = [
        {"pooling": "mean"},
        {"query_instruction": "ducks:"},
        {"document_instruction": "ducks:"},
        {"truncate_dim": 16},
        {"normalize": False},
        {"mcls": True},
    ]
    prints = [M3Encoder(str(tiny_checkpoint), device="cpu", **options).info.fingerprint for options in variants]
    assert len({*prints, encoder.info.fingerprint}) == len(variants) + 1
    same = M3Encoder(str(tiny_checkpoint), device="cpu", pooling="cls", truncate_dim=64, batch_tokens=9, max_length=50)
    assert same.info.fingerprint == encoder.info.fingerprint
    numpys = M3Encoder(str(tiny_checkpoint), device="cpu", truncate_dim=np.int64(16))
    assert numpys.info.fingerprint == prints[3]


def test_what_loads_an_encoder_again_can_be_written_as_json(tiny_checkpoint: Path) -> None:
    numbers = {"max_length": 16, "batch_tokens": 99}
    numpys = {name: np.int64(value) for name, value in numbers.items()}
    options = M3Encoder(str(tiny_checkpoint), device="cpu", **numpys).reload_options
    assert json.loads(json.dumps(options)) == {"device": "cpu", "dtype": "float32", **numbers}


def test_bad_input_is_named(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="got one string: 'ducks'"):
        encoder.encode_queries("ducks")
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        encoder.encode_queries(["ducks", None])  # type: ignore[list-item]
    for encode in (encoder, CachedEncoder(encoder, MemoryCache())):
        odd_ones = {"list_iterator": iter(["a"]), "dict": {"a": 1}, "set": {"a"}, "NoneType": None, "int": 3}
        for kind, odd in odd_ones.items():
            with pytest.raises(InputError, match=f"got a {kind}; make it one"):
                encode.encode_documents(odd)  # type: ignore[arg-type]
            with pytest.raises(InputError, match=f"got a {kind}; make it one"):
                encode.encode_dense(odd, role="query")  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [np.array("ducks"), np.array([["ducks"], ["geese"]])])
def test_a_table_is_no_list_of_texts(encoder: M3Encoder, odd: Any) -> None:
    with pytest.raises(InputError, match=rf"got a ndarray of {odd.ndim} dimensions; give one column"):
        encoder.encode_documents(odd)


def test_a_prefix_leaves_room_for_a_text(tiny_checkpoint: Path) -> None:
    prefixed = partial(M3Encoder, str(tiny_checkpoint), device="cpu", query_instruction="find the ducks: ")
    with pytest.raises(ConfigurationError, match=r"3 is out of range .* beside a prefix of \d+ tokens: choose") as told:
        prefixed(max_length=3)
    least = int(re.findall(r"choose (\d+)", str(told.value))[0])
    encoder = prefixed(max_length=least)
    assert len(encoder.encode_queries(["ducks"]).colbert) == len(encoder.token_spans("ducks", role="query")) > 1
    with pytest.raises(ConfigurationError, match="out of range"):
        encoder.encode_queries(["ducks"], max_length=least - 1)
    assert len(encoder.encode_documents(["ducks"], max_length=3)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 8193}, "8193 is out of range .* 3 to 8192"),
        ({"max_length": 2}, "2 is out of range"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"batch_tokens": "x"}, "batch_tokens must be a whole number, got 'x'"),
        ({"max_length": "512"}, "max_length must be a whole number, got '512'"),
        ({"max_length": 512.5}, r"max_length must be a whole number, got 512\.5"),
        ({"max_length": True}, "max_length must be a whole number, got True"),
        ({"truncate_dim": 2.5}, r"truncate_dim must be a whole number, got 2\.5"),
        ({"query_instruction": 5}, "an instruction must be text, got 5"),
        ({"pooling": ""}, "pooling is '', must be one of cls"),
        ({"colbert_dtype": "int8"}, "colbert_dtype is 'int8', must be float16 or float32"),
        ({"dtype": "int3"}, "'int3' is unknown: choose one of float32"),
        ({"pooling": "max"}, "pooling is 'max', must be one of cls, mean, last_token"),
        ({"truncate_dim": 65}, "truncate_dim must be 1 to 64, got 65"),
        ({"device": "abacus"}, "'abacus' cannot be used .*device='cpu'"),
    ],
)
def test_bad_options_are_named(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        M3Encoder(str(tiny_checkpoint), **options)
