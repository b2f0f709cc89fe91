"""HashEncoder keeps the promises of the Encoder protocol."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.testing import HashEncoder

TEXTS = ["Ducks swim; ducks dive.", "", "鸭子 und Enten", " ... "]


def test_shapes_and_units() -> None:
    encoder: Encoder = HashEncoder(dense_dim=12, colbert_dim=5, vocab_size=1000)
    output = encoder.encode_documents(TEXTS)
    assert output.dense.shape == (4, 12)
    assert output.lexical.shape == (4, 1000)
    assert output.colbert.shape[1] == 5
    assert np.diff(output.offsets).tolist() == [4, 0, 4, 0]
    assert np.allclose(np.linalg.norm(output.dense, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(output.colbert.astype(float), axis=1), 1, atol=2e-3)
    assert np.diff(output.lexical.indptr).tolist() == [3, 0, 4, 0]
    assert len(encoder.encode_queries([])) == 0


def test_a_text_gives_the_same_alone_and_among_others() -> None:
    together = HashEncoder().encode_documents(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = HashEncoder().encode_queries([text])
        assert np.array_equal(alone.dense, together[i].dense)
        assert np.array_equal(alone.colbert, together[i].colbert)
        assert alone.lexical_dicts() == together[i].lexical_dicts()


def test_spans_are_those_of_the_vectors() -> None:
    encoder = HashEncoder()
    for text in TEXTS:
        spans = encoder.token_spans(text)
        assert spans.shape == (len(encoder.encode_documents([text]).colbert), 2)
        assert np.array_equal(spans, encoder.word_spans(text))
    assert [TEXTS[0][a:b] for a, b in encoder.word_spans(TEXTS[0])] == ["Ducks", "swim", "ducks", "dive"]


def test_the_fingerprint_tells_dimensions_apart() -> None:
    assert HashEncoder().info == HashEncoder().info
    assert HashEncoder(dense_dim=33).info.fingerprint != HashEncoder().info.fingerprint


def test_the_fakes_need_neither_torch_nor_pytest() -> None:
    use = "import sys, m3rag.testing as t; t.HashEncoder().encode_queries(['a'])"
    code = use + "; print({'torch', 'pytest'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
