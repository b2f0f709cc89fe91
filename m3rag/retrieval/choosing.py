"""From scored candidates to the hits returned: reranking, threshold, grouping, diversity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from m3rag.retrieval.diversity import diverse
from m3rag.retrieval.fusion import Candidates
from m3rag.retrieval.grouping import at_most_per_document
from m3rag.retrieval.options import Plan
from m3rag.scoring import order_of
from m3rag.store.protocol import Store
from m3rag.types import Hit, LegRanks, LegScores


def chosen(store: Store, text: str | None, found: Candidates, plan: Plan) -> list[Hit]:
    """The hits of a search, in the order: rerank, threshold, grouping, diversity, the first `k`.

    Args:
        store: Holds the chunks.
        text: The question, for a reranker.
        found: The candidates, scored.
        plan: The search.
    """
    hits: Iterable[Hit] = _in_order(store, found, plan)
    if plan.reranker is not None:
        if plan.group_by_document is not None:  # what the reranker is given is not to be of one document
            hits = at_most_per_document(hits, max(plan.group_by_document, plan.depth // plan.k))
        hits = _reranked(list(islice(hits, plan.depth)), text or "", plan)
    elif plan.score_threshold is not None:
        hits = _above(hits, plan.score_threshold)
    if plan.group_by_document is not None:
        hits = at_most_per_document(hits, plan.group_by_document)
    if plan.diversity > 0:
        return diverse(store, list(islice(hits, plan.pool)), k=plan.k, diversity=plan.diversity)
    return list(islice(hits, plan.k))


def _in_order(store: Store, found: Candidates, plan: Plan) -> Iterator[Hit]:
    """All candidates as hits, best first; read from the store a page at a time, as they are asked for."""
    fused = found.fused(plan.weights, fusion=plan.fusion, rrf_k=plan.rrf_k)
    order = order_of(fused, found.ids)
    for start in range(0, len(order), plan.depth):
        page = order[start : start + plan.depth]
        chunks = {chunk.id: chunk for chunk in store.get([found.ids[i] for i in page])}
        for i in page:
            key = found.ids[i]
            if key in chunks:  # else it was deleted since it was found
                yield Hit(
                    chunk=chunks[key],
                    score=float(fused[i]),
                    scores=LegScores(**{leg: float(scores[i]) for leg, scores in found.scores.items()}),
                    ranks=LegRanks(**{leg: ranked[key] for leg, ranked in found.ranks.items()}),
                    found_by=found.found_by(key),
                )


def _above(hits: Iterable[Hit], threshold: float) -> Iterator[Hit]:
    for hit in hits:
        if hit.score < threshold:
            return
        yield hit


def _reranked(hits: list[Hit], text: str, plan: Plan) -> list[Hit]:
    if plan.reranker is None or not hits:
        return hits
    ordered = plan.reranker.rerank(text, hits)
    if plan.score_threshold is None and plan.diversity == 0:
        return ordered
    # What the reranker did not look at has a score on another scale, which nothing can be compared with.
    seen = [hit for hit in ordered if hit.scores.rerank is not None]
    return seen if plan.score_threshold is None else list(_above(seen, plan.score_threshold))
