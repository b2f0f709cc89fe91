"""Whether a reranker helps: the fused order against the order it makes of it, question by question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3rag.evaluation.metrics import parse_metric
from m3rag.evaluation.tune_candidates import Floats, Judged, Progress
from m3rag.evaluation.tune_search import as_rows
from m3rag.reranking.protocol import Reranker
from m3rag.scoring import Weights
from m3rag.store.protocol import Store
from m3rag.types import LEGS, Hit, LegScores


def reranked(
    judged: Sequence[Judged],
    weights: Sequence[Weights],
    reranker: Reranker,
    store: Store,
    *,
    metric: str,
    top_n: int,
    progress: Progress | None = None,
) -> Floats:
    """The metric of each question after reranking the best chunks of its fused order: `(questions,)`.

    Args:
        judged: The questions.
        weights: For each the weights that make its fused order.
        reranker: Makes the new order.
        store: Where the chunks' texts are.
        metric: Such as `ndcg@10`.
        top_n: How many chunks are handed to the reranker; the others follow behind in the fused order.
        progress: Called with the number of questions done and of all.
    """
    values = np.zeros(len(judged))
    for i, (question, used) in enumerate(zip(judged, weights, strict=True)):
        if len(question.relevant):
            values[i] = _value(question, used, reranker, store, metric=metric, top_n=top_n)
        if progress:
            progress(i + 1, len(judged))
    return values


def _value(question: Judged, weights: Weights, reranker: Reranker, store: Store, *, metric: str, top_n: int) -> float:
    fused = question.fused(as_rows([weights]))[:, 0].tolist()
    ids = question.chunk_ids
    order = sorted((i for i in range(len(ids)) if fused[i] > -np.inf), key=lambda i: (-fused[i], ids[i]))
    row = {key: i for i, key in enumerate(ids)}
    chunks = store.get([ids[i] for i in order[:top_n]])
    hits = [
        Hit(
            chunk,
            score=fused[row[chunk.id]],
            scores=LegScores(**dict(zip(LEGS, question.scores[row[chunk.id]].tolist(), strict=True))),
        )
        for chunk in chunks
    ]
    again = [row[hit.chunk.id] for hit in reranker.rerank(question.question.query, hits)]
    units = np.searchsorted(question.starts, [*again, *order[top_n:]], side="right") - 1
    function, k = parse_metric(metric)
    gains = dict(zip(question.relevant.tolist(), question.gains.tolist(), strict=True))
    # A unit stands where the first of its chunks stands.
    ranked = [gains.get(unit, 0.0) for unit in dict.fromkeys(units.tolist())]
    return function(np.array(ranked, np.float64), question.ideal, k)
