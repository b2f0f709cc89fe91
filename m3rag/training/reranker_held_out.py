"""What a reranker has learned so far: how it orders a few passages of each question kept out of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.evaluation.metrics import aggregate
from m3rag.reranking.pairs import TextPair
from m3rag.reranking.scorer import Scores
from m3rag.training.data import Example, known_positives
from m3rag.training.held_out import METRIC

OTHERS = 10
"""Passages of its source that a question is given beside its own."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The passages that a reranker has to order.

    Attributes:
        query: The question.
        source: Of the question.
        passages: In random order, so that a reranker that gives all the same score gains nothing by it.
        relevant: Which of them answer it.
    """

    query: str
    source: str
    passages: tuple[str, ...]
    relevant: frozenset[str]


def candidates(held: Sequence[Example], others: Sequence[Example], *, seed: int) -> list[Candidates]:
    """What each held-out question is measured on.

    These are its positives, its own hard negatives and ten other passages of its source. That is easier than
    the first hundred of a search, so the figure tells runs apart; what a reranker adds to a search is told by
    `m3rag eval`.

    Args:
        held: The held-out examples.
        others: Whose passages are drawn from, besides those of `held`.
        seed: Of the draw.
    """
    pools: dict[str, dict[str, None]] = defaultdict(dict)
    known = known_positives((*held, *others))
    for example in (*held, *others):
        pools[example.source].update(dict.fromkeys((*example.positives, *example.negatives)))
    listed = {source: list(pool) for source, pool in pools.items()}
    found = []
    for i, example in enumerate(held):
        rng = np.random.default_rng([seed, i])
        relevant = known[example.source, example.query]
        own = dict.fromkeys([*example.positives, *(text for text in example.negatives if text not in relevant)])
        pool = listed[example.source]
        # Of so many, ten at least are others; or the pool holds no more.
        drawn = rng.permutation(len(pool))[: OTHERS + len(own) + len(relevant)]
        rest = [pool[n] for n in drawn if pool[n] not in own and pool[n] not in relevant]
        passages = [*own, *rest[:OTHERS]]
        shuffled = tuple(passages[n] for n in rng.permutation(len(passages)))
        found.append(Candidates(example.query, example.source, shuffled, frozenset(example.positives)))
    return found


def measure_reranker(score: Callable[[Sequence[TextPair]], Scores], asked: Sequence[Candidates]) -> float:
    """The mean over sources of nDCG@10 in [0, 1].

    Args:
        score: Gives each question and passage a score.
        asked: There must be one.
    """
    by_source: dict[str, list[float]] = defaultdict(list)
    for candidate in asked:
        scores = score([(candidate.query, passage) for passage in candidate.passages])
        # Names of equal length, since equal scores are ordered by name.
        names = [f"{i:09}" for i in range(len(candidate.passages))]
        run = {"q": dict(zip(names, map(float, scores), strict=True))}
        relevant = zip(names, candidate.passages, strict=True)
        qrels = {"q": {name: 1 for name, passage in relevant if passage in candidate.relevant}}
        by_source[candidate.source].append(aggregate(run, qrels, [METRIC])[METRIC])
    means = [sum(values) / len(values) for values in by_source.values()]
    return sum(means) / len(means)
