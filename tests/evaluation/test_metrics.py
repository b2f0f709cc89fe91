"""Metrics against ir-measures, on random runs with many ties."""

from __future__ import annotations

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from m3rag.errors import InputError
from m3rag.evaluation.metrics import aggregate, as_ranked, mean, per_query

DOCUMENTS = ["d1", "d10", "d2", "D2", "é", "鸭", "z-9", "a b"]
CUTS = (1, 3, 10)
PAIRS = {
    f"{name}@{k}": measure @ k
    for k in CUTS
    for name, measure in (("ndcg", nDCG), ("recall", R), ("map", AP), ("hit", Success))
}

# Few values, so that most runs have ties; 1 + 1e-12 ties with 1 in single precision.
scores = st.sampled_from([0.0, 1.0, 1 + 1e-12, -2.5, 0.1, 1e30, 3.25]) | st.floats(-5, 5, width=32)
runs = st.dictionaries(st.sampled_from("qrstx"), st.dictionaries(st.sampled_from(DOCUMENTS), scores))
judgements = st.dictionaries(
    st.sampled_from("qrst"),
    st.dictionaries(st.sampled_from([*DOCUMENTS, "unseen 1", "unseen 2"]), st.integers(-1, 4), min_size=1),
    min_size=1,
)


@settings(max_examples=300, deadline=None)
@given(runs, judgements)
def test_every_query_agrees_with_ir_measures(
    run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]
) -> None:
    ours = per_query(run, qrels, list(PAIRS))
    names = {measure: name for name, measure in PAIRS.items()}
    seen = 0
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        assert ours[names[metric.measure]][metric.query_id] == pytest.approx(metric.value, abs=1e-9)
        seen += 1
    assert seen == len(PAIRS) * len(qrels)
    means = ir_measures.calc_aggregate(list(names), qrels, run)
    assert aggregate(run, qrels, list(PAIRS)) == pytest.approx({names[m]: v for m, v in means.items()}, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(runs, judgements)
def test_mrr_agrees_with_ir_measures(run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]) -> None:
    # trec_eval knows no cut-off for RR, so an uncut RR is cut here.
    uncut = {metric.query_id: metric.value for metric in ir_measures.iter_calc([RR], qrels, run)}
    ours = per_query(run, qrels, [f"mrr@{k}" for k in (*CUTS, 1000)])
    for k in (*CUTS, 1000):
        expected = {query: value if value >= 1 / k - 1e-9 else 0.0 for query, value in uncut.items()}
        assert ours[f"mrr@{k}"] == pytest.approx(expected, abs=1e-9)


@given(judgements, st.permutations(DOCUMENTS))
def test_mrr_with_a_cut_agrees_where_nothing_ties(qrels: dict[str, dict[str, int]], order: list[str]) -> None:
    run = {query: {document: float(-i) for i, document in enumerate(order)} for query in qrels}
    for k in CUTS:
        expected = ir_measures.calc_aggregate([RR @ k], qrels, run)[RR @ k]
        assert aggregate(run, qrels, [f"mrr@{k}"])[f"mrr@{k}"] == pytest.approx(expected, abs=1e-9)


@given(judgements, st.permutations(DOCUMENTS), st.lists(scores, min_size=8, max_size=8))
def test_a_ranking_with_ties_is_read_in_its_order(
    qrels: dict[str, dict[str, int]], order: list[str], values: list[float]
) -> None:
    ranked = as_ranked(zip(order, sorted(values, reverse=True), strict=True))
    assert list(ranked) == order
    by_rank = {document: float(-i) for i, document in enumerate(order)}
    run, expected = dict.fromkeys(qrels, ranked), dict.fromkeys(qrels, by_rank)
    assert per_query(run, qrels, list(PAIRS)) == per_query(expected, qrels, list(PAIRS))
    for k in CUTS:  # which breaks ties the other way round
        theirs = ir_measures.calc_aggregate([RR @ k], qrels, run)[RR @ k]
        assert aggregate(expected, qrels, [f"mrr@{k}"])[f"mrr@{k}"] == pytest.approx(theirs, abs=1e-9)


def test_scores_that_do_not_tie_are_kept() -> None:
    given = {"a": 2.0, "b": 0.1, "c": -1.0}
    assert as_ranked(given.items()) == given
    assert as_ranked([]) == {}


def test_graded_ndcg_by_hand() -> None:
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    qrels = {"q": {"b": 3, "c": 1, "missed": 2}}
    dcg = 3 / 1.584962500721156 + 1 / 2
    best = 3 + 2 / 1.584962500721156 + 1 / 2
    assert aggregate(run, qrels, ["ndcg@3", "recall@2", "mrr@3", "map@3", "hit@1"]) == pytest.approx(
        {"ndcg@3": dcg / best, "recall@2": 1 / 3, "mrr@3": 0.5, "map@3": (1 / 2 + 2 / 3) / 3, "hit@1": 0.0}, abs=1e-12
    )


def test_queries_are_those_of_the_judgements() -> None:
    values = per_query({"x": {"a": 1.0}}, {"q": {"a": 1}, "r": {"a": 0}})
    assert values["ndcg@10"] == {"q": 0.0, "r": 0.0}
    assert aggregate({}, {}, ["ndcg@10"]) == {"ndcg@10": 0.0}
    assert mean([]) == 0.0


@pytest.mark.parametrize(
    "name", ["p@10", "map", "ndcg", "ndcg@0", "ndcg@x", "ndcg@-1", "", "@3", "ndcg@²", "ndcg@1000000"]
)
def test_an_unknown_metric_says_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match="ndcg, recall, mrr, map, hit with a cut-off, such as ndcg@10"):
        aggregate({}, {}, [name])


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="'q'"):
        aggregate({"q": {"a": float("nan")}}, {"q": {"a": 1}})
