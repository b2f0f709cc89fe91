"""Ranking metrics in numpy, equal to trec_eval's.

A run gives scores, `{query id: {document id: score}}`; qrels give gains, `{query id: {document id:
gain}}`. A gain above 0 is relevant; negative ones count as 0. Queries without judgements are left
out, and judged queries that the run does not answer count as 0.

A ranking is ordered as in trec_eval: by score in single precision, best first, and ties by document
id, the last one first. Every metric uses this one order; ir-measures' `RR@k` alone breaks ties the
other way round, since it takes that metric from another tool than the rest. What orders its ties in
another way, as our own search does (the first id first), writes its run by `as_ranked`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from m3rag.errors import InputError

Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]

Gains = npt.NDArray[np.float64]


def ndcg(gains: Gains, ideal: Gains, k: int) -> float:
    """Normalised discounted cumulative gain: sum of `gain / log2(rank + 1)`, over the best possible.

    Args:
        gains: `(n,)` of the documents retrieved, best first, 0 where not judged.
        ideal: `(r,)` of all relevant documents, largest first.
        k: How many ranks count.
    """
    best = _dcg(ideal[:k])
    return _dcg(gains[:k]) / best if best else 0.0


def recall(gains: Gains, ideal: Gains, k: int) -> float:
    """The share of all relevant documents that stand in the first `k`; arguments as in `ndcg`."""
    return float(np.count_nonzero(gains[:k])) / len(ideal) if len(ideal) else 0.0


def mrr(gains: Gains, ideal: Gains, k: int) -> float:
    """1 / the rank of the first relevant document, 0 if none is in the first `k`; arguments as in `ndcg`."""
    found = np.flatnonzero(gains[:k])
    return 1.0 / (int(found[0]) + 1) if len(found) else 0.0


def average_precision(gains: Gains, ideal: Gains, k: int) -> float:
    """The mean over all relevant documents of the precision at its rank, 0 for those not in the first `k`.

    Its mean over queries is MAP, trec_eval's `map_cut`; arguments as in `ndcg`.
    """
    found = np.flatnonzero(gains[:k])
    return float((np.arange(1, len(found) + 1) / (found + 1)).sum()) / len(ideal) if len(ideal) else 0.0


def hit(gains: Gains, ideal: Gains, k: int) -> float:
    """1 if a relevant document stands in the first `k`, else 0; arguments as in `ndcg`."""
    return float(gains[:k].any())


METRICS: Mapping[str, Callable[[Gains, Gains, int], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": mrr,
    "map": average_precision,
    "hit": hit,
}
DEFAULT_METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "hit@1")


def per_query(run: Run, qrels: Qrels, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, dict[str, float]]:
    """Each metric for each judged query.

    Args:
        run: Scores of the documents retrieved.
        qrels: Gains of the documents judged.
        metrics: Names such as `ndcg@10`: `ndcg`, `recall`, `mrr`, `map` or `hit`, and a cut-off.

    Returns:
        `{metric: {query id: value in [0, 1]}}`, queries in the order of the qrels.

    Raises:
        InputError: If a metric is unknown, or a score is not a number.
    """
    parsed = [(name, *parse_metric(name)) for name in metrics]
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    for query_id, judged in qrels.items():
        retrieved = run.get(query_id, {})
        gains = np.array([max(judged.get(key, 0), 0) for key in _ranking(query_id, retrieved)], np.float64)
        ideal = np.array(sorted((gain for gain in judged.values() if gain > 0), reverse=True), np.float64)
        for name, metric, k in parsed:
            values[name][query_id] = metric(gains, ideal, k)
    return values


def mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing."""
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0


def aggregate(run: Run, qrels: Qrels, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, float]:
    """Each metric's mean over all judged queries; arguments and errors as in `per_query`."""
    return {name: mean(values.values()) for name, values in per_query(run, qrels, metrics).items()}


def as_ranked(ranking: Iterable[tuple[str, float]]) -> dict[str, float]:
    """A ranking as the scores of a run, which every reader orders in the same way.

    A score that is not below the one before it in single precision is lowered to the next number that is;
    all others stay as they are.

    Args:
        ranking: Document ids with their scores, best first; each id once.

    Example:
        >>> as_ranked([("a", 2.0), ("b", 0.5), ("c", 0.5)])
        {'a': 2.0, 'b': 0.5, 'c': 0.4999999701976776}
    """
    scores: dict[str, float] = {}
    last = np.float32(np.inf)
    for key, score in ranking:
        lowered = np.nextafter(last, np.float32(-np.inf))
        scores[key] = float(lowered) if np.float32(score) >= last else score
        last = np.float32(scores[key])
    return scores


def _ranking(query_id: str, retrieved: Mapping[str, float]) -> list[str]:
    keys = sorted(retrieved, reverse=True)
    scores = np.array([retrieved[key] for key in keys], np.float32)
    if np.isnan(scores).any():
        raise InputError(f"the run has a score that is not a number for the query {query_id!r}: remove it")
    return [keys[i] for i in np.argsort(-scores, kind="stable")]


def _dcg(gains: Gains) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def parse_metric(name: str) -> tuple[Callable[[Gains, Gains, int], float], int]:
    """The function and the cut-off that a name such as `ndcg@10` means.

    Raises:
        InputError: If the metric is unknown, or has no cut-off of 1 to 999,999.
    """
    metric, _, cut = str(name).partition("@")
    if metric not in METRICS or not re.fullmatch("0*[1-9][0-9]{0,5}", cut):
        raise InputError(
            f"unknown metric {name!r:.60}: give one of {', '.join(METRICS)} with a cut-off, such as ndcg@10, "
            "of at most 999999"
        )
    return METRICS[metric], int(cut)
