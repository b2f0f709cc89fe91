"""The three scores against loops that follow the paper's definitions word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.scoring import (
    PRESETS,
    Weights,
    colbert_scores,
    dense_scores,
    fuse,
    lexical_scores,
    max_similarities,
)
from m3rag.testing.data import MODEL, random_output, random_query
from m3rag.types import LEGS, SEARCH_LEGS, Leg

seeds = st.integers(0, 10_000)


def outputs(seed: int) -> tuple[M3Output, M3Output]:
    rng = np.random.default_rng(seed)
    return random_output(rng, 4), random_output(rng, int(rng.integers(0, 9)))


@given(seeds)
def test_dense_is_the_inner_product(seed: int) -> None:
    queries, passages = outputs(seed)
    scores = dense_scores(queries, passages)
    assert scores.shape == (len(queries), len(passages))
    assert scores.dtype == np.float32
    for q, query in enumerate(queries.dense.tolist()):
        for p, passage in enumerate(passages.dense.tolist()):
            assert scores[q, p] == pytest.approx(sum(a * b for a, b in zip(query, passage, strict=True)), abs=1e-5)
    assert (np.abs(scores) <= 1 + 1e-5).all()


@given(seeds)
def test_lexical_is_the_sum_over_shared_tokens(seed: int) -> None:
    queries, passages = outputs(seed)
    scores = lexical_scores(queries, passages)
    assert scores.shape == (len(queries), len(passages))
    assert scores.dtype == np.float32
    for q, query in enumerate(queries.lexical_dicts()):
        for p, passage in enumerate(passages.lexical_dicts()):
            expected = sum(query[token] * passage[token] for token in query.keys() & passage.keys())
            assert scores[q, p] == pytest.approx(expected, abs=1e-5)


@given(seeds)
def test_colbert_is_the_mean_of_the_best(seed: int) -> None:
    queries, passages = outputs(seed)
    scores = colbert_scores(queries, passages)
    assert scores.shape == (len(queries), len(passages))
    assert scores.dtype == np.float32
    for q in range(len(queries)):
        for p in range(len(passages)):
            best = []
            for token in queries.colbert_of(q).tolist():
                cosines = [
                    sum(a * b for a, b in zip(token, other, strict=True)) for other in passages.colbert_of(p).tolist()
                ]
                best.append(max(cosines, default=0.0))
            assert scores[q, p] == pytest.approx(sum(best) / len(best) if best else 0.0, abs=1e-5)


def test_empty_passages_among_others_do_not_shift_colbert_scores() -> None:
    rng = np.random.default_rng(0)
    query, full = random_query(rng), M3Output.concatenate([random_query(rng) for _ in range(3)])
    empty = replace(full[0], colbert=full.colbert[:0], offsets=np.zeros(2, np.int64))
    mixed = M3Output.concatenate([empty, full[0], empty, empty, full[1:], empty])
    expected = colbert_scores(query, full)[0]
    assert colbert_scores(query, mixed)[0].tolist() == [0, expected[0], 0, 0, expected[1], expected[2], 0]
    assert colbert_scores(query, M3Output.concatenate([empty, empty])).tolist() == [[0, 0]]


@given(seeds)
def test_a_text_is_most_like_itself(seed: int) -> None:
    text = random_query(np.random.default_rng(seed))
    assert dense_scores(text, text)[0, 0] == pytest.approx(1, abs=1e-5)
    assert colbert_scores(text, text)[0, 0] == pytest.approx(1, abs=2e-3)


@given(seeds)
def test_max_similarities_are_what_colbert_averages(seed: int) -> None:
    queries, passages = outputs(seed)
    scores = colbert_scores(queries, passages)
    for q in range(len(queries)):
        for p in range(len(passages)):
            best = max_similarities(queries.colbert_of(q), passages.colbert_of(p))
            assert best.shape == (len(queries.colbert_of(q)),)
            assert best.dtype == np.float32
            assert scores[q, p] == pytest.approx(best.mean() if len(best) else 0, abs=1e-5)


# Weights and fusion


def test_presets_are_the_papers() -> None:
    assert Weights.parse("miracl") == Weights(1, 0.3, 1) == Weights()
    assert Weights.parse("mldr") == Weights(0.15, 0.5, 0.35)
    assert all(Weights.parse(name) is weights for name, weights in PRESETS.items())
    # Without ColBERT the paper has other weights (appendix C): those of MLDR are no mere part of "All".
    two = {name: Weights.parse(name, legs=("dense", "lexical")) for name in PRESETS}
    assert two == {"miracl": Weights(1, 0.3, 0), "mkqa": Weights(1, 0.3, 0), "mldr": Weights(0.2, 0.8, 0)}


def test_bm25_weighs_as_the_lexical_leg_unless_told_otherwise() -> None:
    assert Weights(1, 0.3, 1).of("bm25") == 0.3
    assert Weights(1, 0.3, 1, bm25=0.5).of("bm25") == 0.5
    assert fuse({"dense": np.ones(1), "bm25": np.zeros(1)}, Weights(3, 1, 7)) == pytest.approx([0.75])
    assert Weights(0, 0, 0, bm25=1).of("lexical") == 0
    with pytest.raises(ConfigurationError, match="weights"):
        Weights(1, 1, 1, bm25=-1)


def test_alpha_is_the_part_of_the_dense_leg() -> None:
    weights = Weights.of_alpha(0.7)
    assert [weights.of(leg) for leg in SEARCH_LEGS] == pytest.approx([0.7, 0.3, 0, 0.3])
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigurationError, match="alpha"):
            Weights.of_alpha(alpha)


def test_weights_are_parsed() -> None:
    assert Weights.parse("1/0.25/0") == Weights(1, 0.25, 0)
    assert Weights.parse(Weights(2, 0, 0)) == Weights(2, 0, 0)
    assert [Weights(1, 2, 3).of(leg) for leg in LEGS] == [1, 2, 3]


@pytest.mark.parametrize("text", ["nan/1/1", "inf/0/1", "", "miralc", "1/2", "1/2/3/4", "a/b/c", "-1/1/1", "0/0/0"])
def test_bad_weights_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="weights"):
        Weights.parse(text)


@pytest.mark.parametrize("value", [[1.0, 0.3, 1.0], {"dense": 1.0}, 1, b"1/0.3/1"])
def test_weights_that_are_no_text_are_told_how_to_be_written(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown weights .*such as 1/0.3/1"):
        Weights.parse(value)


@pytest.mark.parametrize("value", ["1", None, 1 + 2j, 10**400])
def test_weights_that_are_no_numbers_are_refused(value: Any) -> None:
    for leg in ("dense", "colbert"):
        with pytest.raises(ConfigurationError, match="weights must be finite"):
            Weights(**{leg: value})


legs = st.sets(st.sampled_from(LEGS), min_size=1)
positive = st.floats(0.01, 10)


@given(legs, positive, positive, positive, seeds)
def test_fusion_is_the_weighted_mean_of_the_legs_given(used: set[Leg], d: float, x: float, c: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {leg: rng.uniform(-1, 1, 6) for leg in used}
    weight = {"dense": d, "lexical": x, "colbert": c}
    fused = fuse(scores, Weights(d, x, c))
    for i in range(6):
        expected = sum(weight[leg] * scores[leg][i] for leg in used) / sum(weight[leg] for leg in used)
        assert fused[i] == pytest.approx(expected, abs=1e-9)
    assert fused == pytest.approx(fuse(scores, Weights(3 * d, 3 * x, 3 * c)), abs=1e-9)


def test_fusing_legs_of_no_weight_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lexical"):
        fuse({"lexical": np.ones(2)}, Weights(1, 0, 1))


def test_scores_of_no_passages() -> None:
    none = M3Output.empty(dense_dim=MODEL.dense_dim, vocab_size=MODEL.vocab_size, colbert_dim=MODEL.colbert_dim)
    query = random_query(np.random.default_rng(0))
    for scores in (dense_scores, lexical_scores, colbert_scores):
        assert scores(query, none).shape == (1, 0)
        assert scores(none, query).shape == (0, 1)
