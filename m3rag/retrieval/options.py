"""The options of one search: as a caller gives them, and checked, before anything costs time."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, TypedDict

from m3rag.errors import ConfigurationError, InputError
from m3rag.retrieval.fusion import RRF_K, Fusion, parse_fusion
from m3rag.retrieval.mode import Mode
from m3rag.scoring import Weights
from m3rag.store.protocol import Filter
from m3rag.types import MOST

if TYPE_CHECKING:
    from m3rag.reranking.protocol import Reranker

POOL = 50
"""Fewest hits that diversity chooses among."""


class SearchOptions(TypedDict, total=False):
    """Keywords of every search; None is the default of each.

    Attributes:
        k: Most hits to return; >= 1, by default 10. Where it exceeds a depth of the retriever, that
            grows with it.
        mode: Which legs to look at; `all` by default.
        filter: Conditions on the chunks' metadata.
        weights: Of the legs: `Weights`, `"1/0.3/1"`, or a preset's name, which gives the weights that
            the paper has for the mode. By default the retriever's.
        alpha: Instead of weights, in the modes `dense+lexical` and `dense+bm25`: the part of the dense
            leg, [0, 1]; the keyword leg has the rest. Fusion is then `minmax` unless told otherwise,
            as in other libraries.
        fusion: How the legs become one score, see `m3rag.retrieval.Fusion`. By default the retriever's,
            else `weighted`, and `minmax` where BM25 is fused.
        rrf_k: The constant of `rrf`, >= 0; by default 60.
        score_threshold: Leaves out hits of a lower `hit.score`, whose scale is that of the fusion, or
            of the reranker where there is one. Hits that a reranker did not look at are left out then.
        diversity: From 0 (none, the default) to 1: how much a hit loses for being like those before
            it, see `m3rag.retrieval.diversity`.
        group_by_document: Most hits of one document; >= 1. Where some documents would fill all places, it is
            searched again beside them, until there are `k` hits.
        reranker: Orders the best `rerank_top` anew before threshold, grouping and diversity.
        rerank_top: How many hits the reranker is given, at least `k`; by default 50. No others are
            returned.
    """

    k: int | None
    mode: Mode | str | None
    filter: Filter | None
    weights: Weights | str | None
    alpha: float | None
    fusion: Fusion | None
    rrf_k: float | None
    score_threshold: float | None
    diversity: float | None
    group_by_document: int | None
    reranker: Reranker | None
    rerank_top: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Options that were checked, with every default in its place."""

    k: int
    mode: Mode
    filter: Filter | None
    weights: Weights
    fusion: Fusion
    rrf_k: float
    score_threshold: float | None
    diversity: float
    group_by_document: int | None
    reranker: Reranker | None
    rerank_top: int

    @property
    def pool(self) -> int:
        """How many hits diversity chooses `k` from."""
        return max(POOL, 4 * self.k)

    @property
    def depth(self) -> int:
        """How many hits of the fused order are needed to give `k`, grouping apart."""
        if self.reranker is not None:
            return max(self.rerank_top, self.k)
        return self.pool if self.diversity > 0 else self.k

    def without_threshold(self) -> Plan:
        """The same search, whatever the scores; a threshold still leaves out what the reranker did not look at."""
        return replace(self, score_threshold=-math.inf)


def require_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that would otherwise be passed over.

    Args:
        what: What they are given to, such as `a search`.
        given: The names of those given.
        known: The names of those there are.

    Raises:
        InputError: If one is not known.
    """
    known = tuple(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"unknown option {', '.join(unknown)}: {what} takes {', '.join(known)}")


def require_named(options: Iterable[str]) -> None:
    """Refuse options that no search has.

    Raises:
        InputError: If there is such a one.
    """
    require_known("a search", options, SearchOptions.__annotations__)


def require_usable(options: SearchOptions) -> None:
    """Check options that are given ahead of any search, which else the first one would do.

    Raises:
        InputError, ConfigurationError: As `plan`.
    """
    # The mode may come with a search, or from the settings: without one, what it must go with is not known.
    mode = options.get("mode") or (Mode.ALL if options.get("alpha") is None else Mode.DENSE_LEXICAL)
    complete: SearchOptions = {**options, "mode": mode}
    plan(**complete, default_weights=Weights(), default_fusion=None)


def plan(
    *,
    default_weights: Weights | str,
    default_fusion: Fusion | None,
    k: int | None = None,
    mode: Mode | str | None = None,
    filter: Filter | None = None,
    weights: Weights | str | None = None,
    alpha: float | None = None,
    fusion: Fusion | None = None,
    rrf_k: float | None = None,
    score_threshold: float | None = None,
    diversity: float | None = None,
    group_by_document: int | None = None,
    reranker: Reranker | None = None,
    rerank_top: int | None = None,
    **others: object,
) -> Plan:
    """Check the options of a search and put in the defaults.

    Raises:
        InputError: If an option is unknown, a number is none or out of its range, or the reranker is none.
        ConfigurationError: If mode, weights or fusion are unknown, give all legs weight 0, or do not
            go together.
    """
    require_named(others)
    _require_numbers(score_threshold=score_threshold, diversity=diversity, rrf_k=rrf_k, alpha=alpha)
    require_reranker(reranker)
    k = count("k", k)
    group_by_document = count("group_by_document", group_by_document)
    rerank_top = count("rerank_top", rerank_top)
    if diversity is not None and not 0 <= diversity <= 1:
        raise InputError(f"diversity goes from 0 (by score alone) to 1, got {diversity}")
    if score_threshold is not None and math.isnan(score_threshold):
        raise InputError("score_threshold is no number: give a score on the scale of hit.score")
    if rrf_k is not None and not 0 <= rrf_k < math.inf:
        raise ConfigurationError(f"the k of reciprocal rank fusion must be finite and >= 0, got {rrf_k}")
    chosen = Mode.parse(Mode.ALL if mode is None else mode)
    how = fusion if fusion is not None else (None if alpha is not None else default_fusion)
    return Plan(
        k=10 if k is None else k,
        mode=chosen,
        filter=filter,
        weights=_weights(chosen, weights, alpha, default_weights),
        fusion=_fusion(chosen, how, alpha),
        rrf_k=RRF_K if rrf_k is None else rrf_k,
        score_threshold=score_threshold,
        diversity=diversity or 0.0,
        group_by_document=group_by_document,
        reranker=reranker,
        rerank_top=50 if rerank_top is None else rerank_top,
    )


def require_reranker(reranker: object) -> None:
    """Refuse what reranks nothing, such as a name; None is no reranker.

    Raises:
        InputError: If it is neither.
    """
    if reranker is not None and not callable(getattr(reranker, "rerank", None)):
        raise InputError(
            f"reranker is {reranker!r}, must be an m3rag.reranking.Reranker such as ColbertReranker(encoder): a name "
            "goes into the setting reranker"
        )


def count(name: str, number: object) -> int | None:
    """A number of hits, which may be one of numpy's; None is the default.

    Raises:
        InputError: If it is no whole number, or not in 1 ... `MOST`.
    """
    if number is None:
        return None
    try:
        found = None if isinstance(number, bool) else operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None:
        raise InputError(f"{name} must be a whole number, got {number!r}")
    if not 1 <= found <= MOST:
        raise InputError(f"{name} must be at {'least 1' if found < 1 else f'most {MOST:,}'}, got {found}")
    return found


def _require_numbers(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, Real):
            raise InputError(f"{name} must be a number, got {value!r}")


def _weights(mode: Mode, weights: Weights | str | None, alpha: float | None, default: Weights | str) -> Weights:
    if alpha is not None:
        if weights is not None:
            raise ConfigurationError("alpha and weights say the same thing: give one of them")
        if mode not in (Mode.DENSE_LEXICAL, Mode.DENSE_BM25):
            raise ConfigurationError(
                f"alpha weighs a dense against a keyword leg, which mode {mode.value!r} does not: "
                "choose mode='dense+lexical' or mode='dense+bm25', or give weights"
            )
        return Weights.of_alpha(alpha)
    used = Weights.parse(default if weights is None else weights, legs=mode.legs)
    if not any(used.of(leg) for leg in mode.legs):
        if weights is None and len(mode.legs) == 1:  # defaults are of the fused modes
            return Weights(1, 1, 1)
        raise ConfigurationError(
            f"mode {mode.value!r} looks only at {' and '.join(mode.legs)}, of weight 0 in {used}: "
            "give a weight above 0 to one of its legs, or choose another mode"
        )
    return used


def _fusion(mode: Mode, fusion: Fusion | None, alpha: float | None) -> Fusion:
    fuses_bm25 = mode is Mode.DENSE_BM25
    if fusion is None:
        return "minmax" if alpha is not None or fuses_bm25 else "weighted"
    if parse_fusion(fusion) == "weighted" and fuses_bm25:
        raise ConfigurationError(
            "fusion='weighted' adds the scores as they are, and those of BM25 have no bound: "
            "choose fusion='minmax', 'zscore' or 'rrf' for mode 'dense+bm25'"
        )
    return fusion
