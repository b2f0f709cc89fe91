"""Our numbers are FlagEmbedding's, the reference implementation of M3."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.encoder import M3Encoder, M3Output
from m3rag.scoring import colbert_scores, dense_scores, lexical_scores

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def texts(multilingual_texts: list[str]) -> list[str]:
    odd = [
        "",
        " \n\t ",
        "a",
        "🦆🦆 émoji 👩‍👩‍👧",
        "x" * 300,
        "<mask> in the middle",
        "的" * 50,
        "<pad><pad> a <pad> b </s> c <s> <unk>",
    ]
    return [*multilingual_texts[: 200 - len(odd) - 1], *odd, "several ducks swim " * 3000]


@pytest.fixture(scope="module")
def oracle(tiny_checkpoint: Path) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import BGEM3FlagModel

        yield BGEM3FlagModel(str(tiny_checkpoint), use_fp16=False, devices="cpu")


@pytest.fixture(scope="module")
def expected(oracle: Any, texts: list[str]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = oracle.encode(
            texts, batch_size=4, max_length=8192, return_dense=True, return_sparse=True, return_colbert_vecs=True
        )
    return found


def encoder_of(checkpoint: Path, **options: Any) -> M3Encoder:
    return M3Encoder(str(checkpoint), **{"device": "cpu", "dtype": "float32", "colbert_dtype": "float32", **options})


CUDA = pytest.param(
    {"device": "cuda"},
    id="cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param({}, id="torch"), pytest.param({"backend": "onnx"}, id="onnx"), CUDA],
)
def output(tiny_checkpoint: Path, texts: list[str], request: pytest.FixtureRequest) -> M3Output:
    """The texts by every backend that computes in float32."""
    return encoder_of(tiny_checkpoint, **request.param).encode_documents(texts)


def test_the_gate_covers_200_texts_up_to_the_longest(texts: list[str], output: M3Output) -> None:
    lengths = np.diff(output.offsets) + 1
    assert len(texts) == 200
    assert lengths.min() == 2
    assert lengths.max() == 8192


def test_dense_equals_the_reference(expected: dict[str, Any], output: M3Output) -> None:
    assert np.abs(output.dense - expected["dense_vecs"]).max() <= TOLERANCE


def test_colbert_equals_the_reference(expected: dict[str, Any], output: M3Output) -> None:
    for i, vectors in enumerate(expected["colbert_vecs"]):
        assert output.colbert_of(i).shape == vectors.shape
        assert np.abs(output.colbert_of(i) - vectors).max() <= TOLERANCE


def test_lexical_equals_the_reference(expected: dict[str, Any], output: M3Output) -> None:
    for ours, reference in zip(output.lexical_dicts(), expected["lexical_weights"], strict=True):
        assert ours.keys() == reference.keys()
        assert all(abs(ours[token] - float(reference[token])) <= TOLERANCE for token in ours)


@pytest.mark.parametrize("batch_tokens", [1, 600, 40_000])
def test_batching_does_not_change_the_numbers(
    tiny_checkpoint: Path, texts: list[str], output: M3Output, batch_tokens: int
) -> None:
    some = list(range(0, 199, 4))
    again = encoder_of(tiny_checkpoint, batch_tokens=batch_tokens).encode_documents([texts[i] for i in some])
    subset = output[some]
    assert np.array_equal(again.offsets, subset.offsets)
    assert np.abs(again.dense - subset.dense).max() <= TOLERANCE
    assert np.abs(again.colbert - subset.colbert).max() <= TOLERANCE
    assert abs(again.lexical - subset.lexical).max() <= TOLERANCE


def test_one_string_or_many(oracle: Any, tiny_checkpoint: Path, multilingual_texts: list[str]) -> None:
    text = multilingual_texts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = oracle.encode(text, max_length=8192, return_sparse=True, return_colbert_vecs=True)
    ours = encoder_of(tiny_checkpoint).encode_queries([text])
    assert np.abs(ours.dense[0] - reference["dense_vecs"]).max() <= TOLERANCE
    assert np.abs(ours.colbert - reference["colbert_vecs"]).max() <= TOLERANCE


def test_scores_equal_the_reference(oracle: Any, expected: dict[str, Any], output: M3Output) -> None:
    queries, passages = list(range(0, 40, 8)), list(range(60, 100, 8))
    q, p = output[queries], output[passages]
    dense, lexical, colbert = dense_scores(q, p), lexical_scores(q, p), colbert_scores(q, p)
    for i, query in enumerate(queries):
        for j, passage in enumerate(passages):
            assert dense[i, j] == pytest.approx(
                expected["dense_vecs"][query] @ expected["dense_vecs"][passage], abs=1e-5
            )
            weights = [expected["lexical_weights"][n] for n in (query, passage)]
            assert lexical[i, j] == pytest.approx(oracle.compute_lexical_matching_score(*weights), abs=1e-4)
            vectors = [expected["colbert_vecs"][n] for n in (query, passage)]
            assert colbert[i, j] == pytest.approx(float(oracle.colbert_score(*vectors)), abs=1e-5)


def test_max_length_cuts_as_the_reference_does(oracle: Any, tiny_checkpoint: Path, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = oracle.encode(texts[:20], max_length=16, return_sparse=True, return_colbert_vecs=True)
    ours = encoder_of(tiny_checkpoint, max_length=16).encode_documents(texts[:20])
    assert np.abs(ours.dense - reference["dense_vecs"]).max() <= TOLERANCE
    assert [len(v) for v in reference["colbert_vecs"]] == np.diff(ours.offsets).tolist()


@pytest.mark.skipif(
    "M3RAG_BGE_M3" not in os.environ, reason="M3RAG_BGE_M3 names no folder with BAAI/bge-m3's real weights"
)
def test_model_card_anchors() -> None:
    encoder = M3Encoder(os.environ["M3RAG_BGE_M3"], max_length=512)
    first = encoder.encode_queries(["What is BGE M3?", "Defination of BM25"])
    second = encoder.encode_documents(
        [
            "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
            (
                "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
                "appearing in each document"
            ),
        ]
    )
    assert dense_scores(first, second) == pytest.approx(np.array([[0.6265, 0.3477], [0.3499, 0.678]]), abs=2e-3)
    assert lexical_scores(first, second)[0, 0] == pytest.approx(0.19554901, abs=2e-3)
    assert lexical_scores(first, first)[0, 1] == pytest.approx(0.0088, abs=2e-3)
    assert colbert_scores(first, second)[0] == pytest.approx([0.7797, 0.4620], abs=2e-3)
