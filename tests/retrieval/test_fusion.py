"""Fusion against naive oracles: the weighted sum of scoring, and RRF written out."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ConfigurationError
from m3rag.retrieval.fusion import Candidates, minmax, parse_fusion, ranks_of, rrf, zscore
from m3rag.scoring import Weights, fuse, order_of
from m3rag.types import LEGS, Leg

IDS = ["c1", "b", "a", "c10", "é", "鸭"]
few_values = st.lists(st.integers(0, 3), min_size=len(IDS), max_size=len(IDS))


def test_ranks_start_at_one_and_ties_go_by_id() -> None:
    scores = np.array([0.5, 0.9, 0.9, 0.5, -1.0, 0.5])
    assert ranks_of(scores, IDS) == {"a": 1, "b": 2, "c1": 3, "c10": 4, "鸭": 5, "é": 6}
    assert ranks_of(np.zeros(0), []) == {}


@given(few_values)
def test_order_is_a_stable_sort_by_score_then_id(values: list[int]) -> None:
    naive = sorted(IDS, key=lambda key: (-values[IDS.index(key)], key))
    assert [IDS[i] for i in order_of(np.array(values, np.float32), IDS)] == naive


def test_rrf_by_hand() -> None:
    ranks: dict[Leg, dict[str, int]] = {"dense": {"a": 1, "b": 2}, "lexical": {"b": 1}, "colbert": {"c": 3}}
    fused = rrf(ranks, Weights(1.0, 0.5, 2.0), k=60)
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 0.5 / 61, "c": 2 / 63}, abs=1e-15)
    assert rrf(ranks, Weights(0, 1, 0), k=0)["b"] == 1.0


def test_the_same_ranks_in_other_legs_are_a_tie() -> None:
    for places in combinations(range(1, 12), 3):
        orders = {str(i): order for i, order in enumerate(permutations(places))}
        ranks = {leg: {key: order[i] for key, order in orders.items()} for i, leg in enumerate(LEGS)}
        assert len(set(rrf(ranks, Weights(1, 1, 1)).values())) == 1, places


def test_rrf_refuses_a_negative_k() -> None:
    with pytest.raises(ConfigurationError, match="-1"):
        rrf({"dense": {"a": 1}}, Weights(), k=-1)


@given(st.fixed_dictionaries(dict.fromkeys(LEGS, few_values)), st.tuples(*[st.integers(0, 4)] * 3))
def test_candidates_fuse_as_the_oracles(values: dict[Leg, list[int]], raw: tuple[int, int, int]) -> None:
    if not any(raw):
        return
    weights = Weights(*raw)
    scores = {leg: np.array(numbers, np.float64) for leg, numbers in values.items()}
    candidates = Candidates.scored(IDS, scores)
    assert np.array_equal(candidates.fused(weights, fusion="weighted"), fuse(scores, weights))

    naive = []
    for i, key in enumerate(IDS):
        total = 0.0
        for leg in LEGS:
            before = [j for j, other in enumerate(IDS) if (-values[leg][j], other) < (-values[leg][i], key)]
            # Sharing no token is not being ranked last: it is not being found.
            if leg != "lexical" or values[leg][i] > 0:
                total += weights.of(leg) / (60 + 1 + len(before))
        naive.append(total)
    assert candidates.fused(weights, fusion="rrf") == pytest.approx(naive, abs=1e-12)


@given(few_values, few_values, st.sampled_from(["minmax", "zscore"]))
def test_normalised_fusion_is_over_all_that_were_scored(dense: list[int], lexical: list[int], fusion: Any) -> None:
    both = {"dense": np.array(dense, np.float64), "lexical": np.array(lexical, np.float64)}
    whole = Candidates.scored(IDS, both)  # type: ignore[arg-type]
    part = whole.joined(Candidates.scored(IDS[1:4], {"colbert": np.array([0.2, 0.4, 0.9])}))
    weights = Weights(2, 1, 0)
    naive = np.zeros(len(IDS))
    for share, values in ((2 / 3, dense), (1 / 3, lexical)):
        if len(set(values)) == 1:
            naive += share * (fusion == "minmax" and values[0] > 0)
        else:
            mean = sum(values) / len(values)
            deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
            low, span = min(values), max(values) - min(values)
            naive += [share * ((v - low) / span if fusion == "minmax" else (v - mean) / deviation) for v in values]
    assert whole.fused(weights, fusion=fusion) == pytest.approx(naive, abs=1e-12)
    # A selection is still measured against everything its leg scored.
    assert part.fused(weights, fusion=fusion) == pytest.approx(naive[1:4], abs=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"), [([0.1] * 7, 1.0), ([0.3], 1.0), ([0.0, 0.0], 0.0), ([-0.1], 0.0), ([], 0.0)]
)
def test_a_leg_of_one_score_tells_none_apart(values: list[float], expected: float) -> None:
    scores = np.array(values, np.float64)
    assert minmax(scores, scores).tolist() == [expected] * len(values)
    assert zscore(scores, scores).tolist() == [0.0] * len(values)


def test_minmax_is_from_0_to_1_and_zscore_of_mean_0() -> None:
    scores = np.random.default_rng(0).normal(40, 9, 500)
    assert (minmax(scores, scores).min(), minmax(scores, scores).max()) == (0, 1)
    assert zscore(scores, scores).mean() == pytest.approx(0, abs=1e-12)
    assert zscore(scores, scores).std() == pytest.approx(1)


def test_joining_keeps_the_ranks_among_all_candidates() -> None:
    first = Candidates.scored(["a", "b", "c"], {"dense": np.array([0.1, 0.2, 0.3])})
    both = first.joined(Candidates.scored(["b", "a"], {"colbert": np.array([0.5, 0.6])}))
    assert list(both.ids) == ["b", "a"]
    assert both.scores["dense"].tolist() == [0.2, 0.1]
    assert both.ranks["dense"]["a"] == 3
    assert both.ranks["colbert"] == {"a": 1, "b": 2}


def test_an_unknown_fusion_names_those_there_are() -> None:
    assert parse_fusion("rrf") == "rrf"
    with pytest.raises(ConfigurationError, match=r"'sum'.*weighted, minmax, zscore, rrf"):
        parse_fusion("sum")
