"""Differences from a baseline, and thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from m3rag.errors import InputError
from m3rag.evaluation.comparing import Threshold, differences, require_same_data
from m3rag.evaluation.report import Report
from m3rag.evaluation.tune_interval import bootstrap

CONTEXT: dict[str, Any] = {"data": {"path": "q.jsonl", "hash": "0123456789abcdef"}}


def report(systems: dict[str, dict[str, float]], answers: dict[str, float | None] | None = None) -> Report:
    """Each system with the values of its questions."""
    each = {name: {"ndcg@10": values} for name, values in systems.items()}
    means = {name: {"metrics": {"ndcg@10": float(np.mean([*v.values()]))}} for name, v in systems.items()}
    return Report(means, answers, each, CONTEXT)


def values(rng: np.random.Generator, n: int = 40) -> dict[str, float]:
    return {f"q{i}": value for i, value in enumerate(rng.random(n).tolist())}


def test_differences_are_paired_and_repeat() -> None:
    rng = np.random.default_rng(0)
    old = values(rng)
    better = {key: value + 0.05 for key, value in reversed(old.items())}
    found = differences(report({"all": better, "new": old}), report({"all": old}))
    (change,) = found
    assert (change.system, change.metric, change.questions) == ("all", "ndcg@10", 40)
    assert change.interval.mean == pytest.approx(0.05)
    assert change.interval.low == pytest.approx(0.05), "paired: every question gained as much"
    other = {key: value + rng.normal() for key, value in old.items()}
    first = differences(report({"all": other}), report({"all": old}), seed=3)
    assert first == differences(report({"all": other}), report({"all": old}), seed=3)
    assert first[0].interval.low < first[0].interval.mean < first[0].interval.high
    pairs = np.array([other[key] - old[key] for key in sorted(old)])
    assert first[0].interval == bootstrap(pairs, level=0.95, seed=3)


def test_only_common_questions_count() -> None:
    (change,) = differences(report({"all": {"a": 1.0, "b": 1.0}}), report({"all": {"b": 0.5, "c": 0.0}}))
    assert (change.questions, change.interval.mean) == (1, 0.5)
    with pytest.raises(InputError, match="no figure in common"):
        differences(report({"all": {"a": 1.0}}), report({"dense": {"a": 1.0}}))


def test_other_data_is_refused() -> None:
    other = replace(report({"all": {"a": 1.0}}), context={"data": {"path": "other.jsonl", "hash": "ffff"}})
    with pytest.raises(InputError, match=r"other.jsonl, hash ffff, not 0123456789ab"):
        differences(report({"all": {"a": 1.0}}), other)
    with pytest.raises(InputError, match="hash None"):
        require_same_data("x", replace(other, context={}))


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("ndcg@10=0.8", Threshold(None, "ndcg@10", 0.8)),
        ("dense+lexical:recall@100=1", Threshold("dense+lexical", "recall@100", 1.0)),
        ("answers:f1=.4", Threshold("answers", "f1", 0.4)),
    ],
)
def test_thresholds_are_read(text: str, threshold: Threshold) -> None:
    assert Threshold.parse(text) == threshold


@pytest.mark.parametrize("text", ["", "ndcg@10", "ndcg@10=", "=0.8", "all:=1", "ndcg@10=high", "ndcg@10=nan", "f1=inf"])
def test_what_is_no_threshold(text: str) -> None:
    with pytest.raises(InputError, match="is no threshold"):
        Threshold.parse(text)


def test_thresholds_hold_or_not() -> None:
    found = report({"dense": {"a": 0.25}, "all": {"a": 0.75}}, {"f1": 0.5, "refusal_f1": None})
    assert Threshold.parse("ndcg@10=0.75").failure(found) is None
    assert Threshold.parse("ndcg@10=0.76").failure(found) == "all:ndcg@10 is 0.7500, below 0.76"
    assert Threshold.parse("dense:ndcg@10=0.5").failure(found) == "dense:ndcg@10 is 0.2500, below 0.5"
    assert Threshold.parse("answers:f1=0.6").failure(found) == "answers:f1 is 0.5000, below 0.6"
    assert Threshold.parse("ndcg@10=0.5").failure(report({"bm25": {"a": 0.25}})) == "bm25:ndcg@10 is 0.2500, below 0.5"
    assert Threshold.parse("ndcg@10=0.5").failure(report({"All": {"a": 0.5}, "Dense": {"a": 0.0}})) is None
    with pytest.raises(InputError, match=r"no figure all:map@5 .* there are dense:ndcg@10, all:ndcg@10, answers:"):
        Threshold.parse("map@5=0.5").failure(found)
    with pytest.raises(InputError, match="no figure all:ndcg@10"):
        Threshold.parse("ndcg@10=0.5").failure(report({"dense": {"a": 0.5}, "bm25": {"a": 0.5}}))
    with pytest.raises(InputError, match="answers:refusal_f1 has no value"):
        Threshold.parse("answers:refusal_f1=0.5").failure(found)
