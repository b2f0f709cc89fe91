"""Why a search found nothing: the one reason that holds, and what would mend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from m3rag.retrieval.options import Plan
from m3rag.store.protocol import Filter, Store
from m3rag.types import KEYWORD_LEGS, LEGS, Hit

Reason = Literal["empty index", "filter", "nothing shared", "score threshold"]


@dataclass(frozen=True, slots=True)
class NoHits:
    """Why there are no hits.

    Attributes:
        reason: Which of the reasons it is, for programs.
        message: The reason and what to do, for people: one sentence without a full stop.
        chunks: How many chunks there are.
        passing: How many of them pass the filter.
        excluded_by: The conditions of the filter that no chunk passes even alone; empty where they
            exclude everything only together, and for other reasons.
        best_score: The best score there was, where all lay below the threshold.
    """

    reason: Reason
    message: str
    chunks: int
    passing: int
    excluded_by: tuple[str, ...] = ()
    best_score: float | None = None


def why_nothing(store: Store, plan: Plan, search: Callable[[Plan], list[Hit]]) -> NoHits | None:
    """The reason why a search finds nothing, the cheapest to find out first; None where it finds something.

    Args:
        store: Where it searches.
        plan: The search.
        search: Does a search.
    """
    chunks = store.count()
    if chunks == 0:
        return NoHits("empty index", "the index is empty; fill it with `m3rag ingest FOLDER`", 0, 0)
    passing = store.count(filter=plan.filter)
    if passing == 0:
        return _filtered(store, plan.filter or {}, chunks)
    if search(plan):
        return None
    best = search(plan.without_threshold()) if plan.score_threshold is not None else []
    if best:
        score = max(hit.score for hit in best)
        message = f"the best of {passing} chunks scores {score:.4g}, below the threshold {plan.score_threshold:g}"
        return NoHits("score threshold", f"{message}; lower it", chunks, passing, best_score=score)
    return NoHits("nothing shared", _nothing_shared(store, plan, passing), chunks, passing)


def _nothing_shared(store: Store, plan: Plan, passing: int) -> str:
    mode = "all" if set(store.manifest.model.legs) == set(LEGS) else "dense"
    if set(plan.mode.legs) <= set(KEYWORD_LEGS):
        return f"none of {passing} chunks shares a token with the question; try --mode {mode}"
    return f"there are no token vectors to compare in the question or in {passing} chunks; try --mode dense"


def _filtered(store: Store, filter: Filter, chunks: int) -> NoHits:
    conditions = list(_conditions(filter))
    alone = tuple(described(one) for one in conditions if store.count(filter=one) == 0)
    message = f"0 of {chunks} chunks pass the filter {' and '.join(map(described, conditions))}"
    if len(conditions) > 1:
        message += f"; no chunk passes {', '.join(alone)}" if alone else "; each condition alone lets some pass"
    return NoHits("filter", message, chunks, 0, alone)


def _conditions(filter: Filter) -> Iterator[dict[str, Any]]:
    """The conditions that must all hold, each as a filter of its own."""
    for key, value in filter.items():
        if key == "$and" and not isinstance(value, Mapping | str):
            parts: Any = value
            for part in parts:
                yield from _conditions(part)
        else:
            yield {key: value}


def described(condition: Mapping[str, Any]) -> str:
    """A condition of one key as a person would write it: `lang=de`, `year={"$gte": 2001}`."""
    ((key, value),) = condition.items()
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    return f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}"
