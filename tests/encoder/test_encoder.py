from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.encoder.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError, ModelError

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


def test_a_batch_that_does_not_fit_is_halved_and_only_it(encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encoder.encode_documents(TEXTS * 4).dense
    sizes: list[int] = []
    real = encoder._forward_batch

    def scarce(ids: list[Any], dropped: int) -> Any:
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(ids, dropped)

    monkeypatch.setattr(encoder, "_forward_batch", scarce)
    done: list[int] = []
    found = encoder.encode_documents(TEXTS * 4, progress=done.append).dense
    assert np.allclose(found, expected, atol=1e-5)
    assert sum(done) == len(TEXTS) * 4
    assert sum(s for s in sizes if s <= 3) == len(TEXTS) * 4  # no text was computed twice


def test_one_text_too_large_for_memory_is_an_error_with_a_remedy(
    encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "_forward_batch", full)
    with pytest.raises(ModelError, match=r"does not fit in the memory.*lower max_length"):
        encoder.encode_documents(["ducks"])


def test_other_errors_are_not_swallowed(encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(encoder, "_forward_batch", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        encoder.encode_documents(TEXTS)


def test_bad_input_is_named(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="got one string: 'ducks'"):
        encoder.encode_queries("ducks")
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        encoder.encode_queries(["ducks", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 8193}, "8193 is out of range .* 3 to 8192"),
        ({"max_length": 2}, "2 is out of range"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"dtype": "int3"}, "'int3' is unknown: choose one of float32"),
        ({"device": "abacus"}, "'abacus' cannot be used .*device='cpu'"),
    ],
)
def test_bad_options_are_named(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        M3Encoder(str(tiny_checkpoint), **options)
