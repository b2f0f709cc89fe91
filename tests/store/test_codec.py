import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from m3rag.errors import ConfigurationError, InputError, StoreError
from m3rag.output import M3Output
from m3rag.scoring import colbert_scores
from m3rag.store.codec import CODECS, DEFAULT_CODEC, LEVELS, Codec, codec_named, rotation
from m3rag.testing.data import MODEL, random_output

ROTATION_OF_4 = [0.35205221, 0.58230942, 0.04960160, -0.73110509]
# The largest error of a component of a unit vector: for int8 half a step of its largest component, and as much again
# for the float16 that `decode` gives.
COMPONENT_ERROR = {"float16": 5e-4, "int8": 0.5 / 127 + 3e-3}
# The root mean square of the error of a cosine is the distance of a vector to what stands for it / sqrt(dim).
# For a normal variable the distance is .097 with 16 levels and .756 with the sign times sqrt(pi / 2).
DISTANCE = {"float16": 1e-3, "int8": 0.03, "int4": 0.12, "binary": 0.82}
each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))


def units(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    vectors = rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@each_codec
@pytest.mark.parametrize(
    ("dim", "widths"), [(128, [256, 130, 66, 18]), (1024, [2048, 1026, 514, 130]), (9, [18, 11, 7, 4])]
)
def test_a_row_has_the_bytes_that_the_codec_promises(codec: Codec, dim: int, widths: list[int]) -> None:
    codes = codec.encode(units(np.random.default_rng(0), 5, dim))
    assert codes.dtype == np.uint8
    assert codes.shape == (5, codec.width(dim)) == (5, widths[list(CODECS).index(codec.name)])


@pytest.mark.parametrize("codec", [CODECS["float16"], CODECS["int8"]], ids=["float16", "int8"])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20), dim=st.integers(1, 200))
def test_no_component_is_further_off_than_half_a_step(codec: Codec, seed: int, n: int, dim: int) -> None:
    # Skewed to few large components, which a coarse scale would serve worst.
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)) ** 5
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    decoded = codec.decode(codec.encode(vectors), dim=dim).astype(np.float32)
    assert np.abs(decoded - vectors).max() <= COMPONENT_ERROR[codec.name]


@each_codec
@pytest.mark.parametrize("kind", ["normal", "one large", "one-hot"])
def test_what_is_decoded_is_as_near_as_theory_says_whatever_the_vectors(codec: Codec, kind: str) -> None:
    rng, dim = np.random.default_rng(1), 128
    vectors = rng.normal(size=(400, dim))
    if kind == "one large":
        vectors[:, 3] *= 40
    elif kind == "one-hot":
        vectors = np.eye(dim)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    decoded = codec.decode(codec.encode(vectors.astype(np.float32)), dim=dim).astype(np.float64)
    distances = np.linalg.norm(decoded - vectors, axis=1)
    assert np.sqrt((distances**2).mean()) <= DISTANCE[codec.name]


@each_codec
def test_products_with_a_float_query_are_right_in_the_mean(codec: Codec) -> None:
    # Otherwise the score of the leg, and with it its share in a weighted sum, would depend on the codec.
    rng = np.random.default_rng(2)
    passage, query = units(rng, 3000, 128).astype(np.float32), units(rng, 1, 128).astype(np.float32)
    passage = passage + query * rng.uniform(0, 2, (3000, 1)).astype(np.float32)
    passage /= np.linalg.norm(passage, axis=1, keepdims=True)
    true = (passage @ query.T)[:, 0]
    told = (codec.decode(codec.encode(passage), dim=128).astype(np.float32) @ query.T)[:, 0]
    assert np.polyfit(true, told, 1)[0] == pytest.approx(1, abs=0.03)


@each_codec
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 12), block=st.sampled_from([1, 100, 10**6]))
def test_scores_are_those_of_the_decoded_vectors(codec: Codec, seed: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    passages, query = random_output(rng, n), random_output(rng, 1)
    codes = codec.encode(passages.colbert)
    decoded = codec.decode(codes, dim=MODEL.colbert_dim)
    expected = colbert_scores(query, M3Output(passages.dense, passages.lexical, decoded, passages.offsets))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m3rag.store.codec.BLOCK_VALUES", block)
        found = codec.colbert_scores(query.colbert, codes, passages.offsets)
    assert found.shape == (n,)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("dim", [3, 128, 1024])
def test_int8_scores_are_those_of_float_products_and_the_same_in_any_company(dim: int) -> None:
    rng = np.random.default_rng(dim)
    passages, query = units(rng, 300, dim), units(rng, 9, dim) * rng.uniform(0.1, 3, (9, 1)).astype(np.float32)
    codec, offsets = CODECS["int8"], np.array([0, 1, 1, 40, 300])
    codes = codec.encode(passages)
    found = codec.colbert_scores(query, codes, offsets)
    products = query.astype(np.float64) @ codec._vectors(codes, dim).astype(np.float64).T
    expected = [0 if a == b else products[:, a:b].max(axis=1).mean() for a, b in itertools.pairwise(offsets)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone = [codec.colbert_scores(query, codes[a:b], np.array([0, b - a]))[0] for a, b in itertools.pairwise(offsets)]
    assert found.tolist() == [float(one) for one in alone]


@each_codec
def test_no_tokens_a_single_token_and_equal_tokens(codec: Codec) -> None:
    token = units(np.random.default_rng(3), 1, 16)
    none = codec.encode(token[:0])
    assert none.shape == (0, codec.width(16))
    assert codec.decode(none, dim=16).shape == (0, 16)
    one = codec.encode(token)
    many = codec.encode(np.repeat(token, 7, axis=0))
    np.testing.assert_array_equal(many, np.repeat(one, 7, axis=0))
    offsets = np.array([0, 0, 1, 8, 8])
    scores = codec.colbert_scores(token, np.concatenate([one, many]), offsets)
    assert scores[0] == scores[3] == 0
    assert scores[1] == pytest.approx(scores[2], abs=1e-6)
    assert codec.colbert_scores(token[:0], one, np.array([0, 1])).tolist() == [0]


@each_codec
def test_a_row_does_not_depend_on_the_other_rows(codec: Codec) -> None:
    vectors = units(np.random.default_rng(4), 33, 24)
    together = codec.encode(vectors)
    alone = np.concatenate([codec.encode(vectors[i : i + 1]) for i in range(len(vectors))])
    # A rotation may round a component that lies on a boundary differently; hardly any does.
    assert (together == alone).mean() > 0.999


@each_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6, 1e30])
def test_what_is_no_number_of_a_vector_is_refused(codec: Codec, bad: float) -> None:
    vectors = units(np.random.default_rng(5), 4, 8).astype(np.float32)
    vectors[2, 5] = bad
    with pytest.raises(InputError, match="token vector 2 holds a NaN or an infinity, or is longer"):
        codec.encode(vectors)
    with pytest.raises(InputError, match=r"matrix \(tokens, dimensions\), got the shape \(8,\)"):
        codec.encode(vectors[0])


@each_codec
def test_vectors_of_any_length_keep_it_and_zeros_stay_zeros(codec: Codec) -> None:
    rng = np.random.default_rng(6)
    vectors, lengths = units(rng, 5, 64).astype(np.float32), np.array([[0], [1e-3], [0.5], [30], [2000]], np.float32)
    one, scaled = (codec.decode(codec.encode(each), dim=64).astype(np.float32) for each in (vectors, vectors * lengths))
    np.testing.assert_allclose(scaled, one * lengths, atol=1e-5, rtol=5e-3)
    assert not scaled[0].any()
    codes = codec.encode(np.zeros((2, 64), np.float16))
    assert codec.colbert_scores(vectors, codes, np.array([0, 2])).tolist() == [0]


@each_codec
def test_bytes_are_codes_again_and_damaged_ones_are_refused(codec: Codec) -> None:
    codes = codec.encode(units(np.random.default_rng(7), 6, 24))
    np.testing.assert_array_equal(codec.from_bytes(codes.tobytes(), dim=24), codes)
    assert codec.from_bytes(b"", dim=24).shape == (0, codec.width(24))
    with pytest.raises(StoreError, match="not a multiple"):
        codec.from_bytes(codes.tobytes()[:-1], dim=24)


@each_codec
def test_bytes_of_zero_give_a_score_of_zero(codec: Codec) -> None:
    codes = np.zeros((3, codec.width(16)), np.uint8)
    query = units(np.random.default_rng(8), 2, 16)
    assert codec.colbert_scores(query, codes, np.array([0, 3])).tolist() == [0]


def test_the_input_stays_as_it_was() -> None:
    vectors = units(np.random.default_rng(9), 4, 8).astype(np.float32)
    before = vectors.copy()
    for codec in CODECS.values():
        codec.encode(vectors)
        codec.colbert_scores(vectors, codec.encode(vectors), np.array([0, 4]))
    np.testing.assert_array_equal(vectors, before)


def test_the_levels_are_lloyd_and_maxs() -> None:
    levels = norm.ppf((np.arange(16) + 0.5) / 16)
    for _ in range(1000):  # each level the mean of its own cell, each boundary in the middle of two levels
        edges = np.array([-np.inf, *((levels[1:] + levels[:-1]) / 2), np.inf])
        levels = (norm.pdf(edges[:-1]) - norm.pdf(edges[1:])) / np.diff(norm.cdf(edges))
    np.testing.assert_allclose(LEVELS, levels[8:], atol=1e-6)


@pytest.mark.parametrize("dim", [1, 8, 128])
def test_the_rotation_is_one_and_always_the_same(dim: int) -> None:
    turn = rotation(dim)
    np.testing.assert_allclose(turn @ turn.T, np.eye(dim), atol=1e-5)
    rotation.cache_clear()
    np.testing.assert_array_equal(rotation(dim), turn)


def test_the_rotation_of_an_index_written_today_is_that_of_tomorrow() -> None:
    np.testing.assert_allclose(rotation(4)[0], ROTATION_OF_4, atol=1e-6)


def test_a_codec_is_found_by_its_name() -> None:
    assert [codec_named(name).name for name in CODECS] == list(CODECS) == ["float16", "int8", "int4", "binary"]
    assert codec_named(DEFAULT_CODEC).bits == 8
    with pytest.raises(ConfigurationError, match=r"unknown codec 'int3' .* float16, int8, int4, binary"):
        codec_named("int3")
