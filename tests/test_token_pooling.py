import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cut_tree, linkage

from m3rag import token_pooling
from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.testing.data import MODEL, random_output
from m3rag.token_pooling import pool_tokens, token_clusters


def output_of(tokens: np.ndarray) -> M3Output:
    one = random_output(np.random.default_rng(0), 1)
    return M3Output(one.dense, one.lexical, tokens, np.array([0, len(tokens)]))


def test_a_factor_of_one_changes_nothing() -> None:
    output = random_output(np.random.default_rng(1), 9)
    assert pool_tokens(output, 1) is output
    assert token_clusters(output.colbert, 1).tolist() == list(range(len(output.colbert)))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 8), factor=st.integers(2, 9))
def test_each_text_keeps_one_unit_vector_for_every_factor_tokens(seed: int, n: int, factor: int) -> None:
    output = random_output(np.random.default_rng(seed), n, max_tokens=30)
    pooled = pool_tokens(output, factor)
    assert np.diff(pooled.offsets).tolist() == [-(-tokens // factor) for tokens in np.diff(output.offsets)]
    np.testing.assert_allclose(np.linalg.norm(pooled.colbert.astype(np.float32), axis=1), 1, atol=2e-3)
    assert pooled.colbert.dtype == output.colbert.dtype
    assert pooled.dense is output.dense
    assert pooled.lexical is output.lexical
    # A text is pooled by itself: what stands beside it in the batch plays no part.
    for i in range(n):
        np.testing.assert_array_equal(pool_tokens(output[i], factor).colbert, pooled.colbert_of(i))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60), factor=st.integers(2, 6))
def test_the_clusters_are_those_of_a_cut_through_wards_tree(seed: int, n: int, factor: int) -> None:
    tokens = np.random.default_rng(seed).normal(size=(n, MODEL.colbert_dim))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    found = token_clusters(tokens, factor)
    expected = cut_tree(linkage(tokens, method="ward"), n_clusters=-(-n // factor)).ravel()
    np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), factor=st.integers(2, 6))
def test_vectors_are_means_of_their_tokens_in_the_order_of_the_first(seed: int, n: int, factor: int) -> None:
    tokens = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    labels, pooled = token_clusters(tokens, factor), pool_tokens(output_of(tokens), factor).colbert
    firsts = [int(np.flatnonzero(labels == row)[0]) for row in range(len(pooled))]
    assert firsts == sorted(firsts)
    for row, vector in enumerate(pooled):
        mean = tokens[labels == row].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)


def test_like_tokens_go_together() -> None:
    near = [[1, 0, 0], [0, 1, 0], [0.99, 0.14, 0], [0, 0.99, 0.14]]
    assert token_clusters(np.array(near, np.float32), 2).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_equal_tokens_are_no_fewer_clusters_than_others(n: int) -> None:
    tokens = np.repeat(np.array([[0.6, 0.8]], np.float16), n, axis=0)
    pooled = pool_tokens(output_of(tokens), 3)
    assert pooled.colbert.shape == (-(-n // 3), 2)
    np.testing.assert_allclose(pooled.colbert, np.repeat(tokens[:1], len(pooled.colbert), axis=0), atol=1e-3)


def test_opposite_tokens_leave_the_first_and_zeros_leave_zero() -> None:
    opposite = np.array([[0, 1], [0, -1]], np.float32)
    assert pool_tokens(output_of(opposite), 2).colbert.tolist() == [[0, 1]]
    assert pool_tokens(output_of(np.zeros((2, 2), np.float32)), 2).colbert.tolist() == [[0, 0]]


def test_no_texts_and_texts_without_tokens() -> None:
    empty = M3Output.empty(dense_dim=4, vocab_size=9, colbert_dim=3)
    assert pool_tokens(empty, 2).colbert.shape == (0, 3)
    assert pool_tokens(output_of(np.zeros((0, 3), np.float16)), 2).offsets.tolist() == [0, 0]


def test_a_long_text_is_pooled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_pooling, "BLOCK_CLUSTERS", 4)
    tokens = np.random.default_rng(2).normal(size=(29, 8))
    labels = token_clusters(tokens, 3)
    assert len(np.unique(labels)) == 10
    assert labels[:12].max() == 3
    assert (labels[12:24].min(), labels[12:24].max()) == (4, 7)
    np.testing.assert_array_equal(labels[12:24] - 4, token_clusters(tokens[12:24], 3))


@pytest.mark.parametrize("factor", [0, -2])
def test_a_factor_below_one_is_refused(factor: int) -> None:
    output = random_output(np.random.default_rng(3), 2)
    with pytest.raises(ConfigurationError, match=f"at least 1, got {factor}"):
        pool_tokens(output, factor)
    with pytest.raises(ConfigurationError, match=f"at least 1, got {factor}"):
        token_clusters(output.colbert, factor)
