"""The candidates of a search, with an exact score in every leg of its mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from m3rag.output import M3Output
from m3rag.retrieval.fusion import Candidates
from m3rag.retrieval.mode import Mode
from m3rag.retrieval.options import Plan
from m3rag.scoring import Weights, order_of
from m3rag.store.protocol import Store
from m3rag.types import KEYWORD_LEGS, Leg, SearchLeg

if TYPE_CHECKING:
    from m3rag.bm25 import BM25Leg
    from m3rag.store.protocol import Filter

FIRST_STAGE: tuple[Leg, ...] = ("dense", "lexical")


@dataclass(frozen=True)
class Question:
    """A question in the forms that the legs ask for; None where no leg of the mode does."""

    text: str | None
    output: M3Output | None


@dataclass(frozen=True)
class Stages:
    """Finds and scores in a store, and in the BM25 leg beside it.

    Attributes:
        store: Where to search.
        bm25: The BM25 leg of the same chunks.
        candidates: How many chunks each leg of a first stage brings.
        rerank_depth: How many chunks of the first order get a ColBERT score in mode `all`.
        exhaustive_limit: Up to how many chunks mode `colbert` compares with all of them.
    """

    store: Store
    bm25: BM25Leg | None
    candidates: int
    rerank_depth: int
    exhaustive_limit: int

    def scored(self, question: Question, plan: Plan) -> Candidates:
        """The candidates of a mode, with an exact score in every leg of it."""
        mode = plan.mode
        if len(mode.legs) == 1 and mode is not Mode.COLBERT:
            return self._best(question, mode.legs[0], plan)
        if mode is Mode.COLBERT:
            if self.store.count(filter=plan.filter) <= self.exhaustive_limit:
                return self._best(question, "colbert", plan)
            return self._colbert(question, plan)
        first = self._first_stage(question, FIRST_STAGE if mode is Mode.ALL else mode.legs, plan)
        if mode is not Mode.ALL:
            return first
        # Weights that count ColBERT alone still need some order of what to rerank.
        known = plan.weights if plan.weights.dense + plan.weights.lexical > 0 else Weights()
        fused = first.fused(known, fusion=plan.fusion, rrf_k=plan.rrf_k)
        order = order_of(fused, first.ids)[: self.rerank_depth]
        return first.joined(self._exact(question, "colbert", [first.ids[i] for i in order], {}))

    def _colbert(self, question: Question, plan: Plan) -> Candidates:
        """What the other legs bring, by ColBERT's score; what has no tokens is not found, as if all were compared."""
        assert question.output is not None
        found = self._found(question, FIRST_STAGE, plan) if len(question.output.colbert) else {}
        known = self._score(question, "colbert", _union(found))
        kept = {key: score for key, score in known.items() if score != 0}
        return Candidates.scored(list(kept), {"colbert": np.array(list(kept.values()), np.float64)}, found)

    def _best(self, question: Question, leg: SearchLeg, plan: Plan) -> Candidates:
        """A mode of one leg: as many as are looked at, more where a document may crowd them or a scale needs them."""
        few = plan.group_by_document is None and plan.fusion in ("weighted", "rrf")
        k = plan.depth if few else max(self.candidates, plan.depth)
        found = self._candidates(question, leg, k, plan.filter)
        return Candidates.scored(list(found), {leg: np.array(list(found.values()), np.float64)}, {leg: found})

    def _first_stage(self, question: Question, legs: Sequence[SearchLeg], plan: Plan) -> Candidates:
        """The union of what each leg found; only a score that no leg has brought along is asked for."""
        found = self._found(question, legs, plan)
        ids = _union(found)
        scores = {}
        for leg in legs:
            missing = [key for key in ids if key not in found[leg]]
            # A keyword leg that found fewer than it was asked for found all that share a token.
            if leg in KEYWORD_LEGS and len(found[leg]) < self.candidates:
                others: Mapping[str, float] = dict.fromkeys(missing, 0.0)
            else:
                others = self._score(question, leg, missing) if missing else {}
            scores[leg] = {**found[leg], **others}
        # A chunk deleted since it was found has no score in some leg, and is no longer a candidate.
        if any(len(known) < len(ids) for known in scores.values()):
            ids = [key for key in ids if all(key in known for known in scores.values())]
        exact = {leg: np.array([known[key] for key in ids], np.float64) for leg, known in scores.items()}
        return Candidates.scored(ids, exact, found)

    def _exact(
        self, question: Question, leg: SearchLeg, ids: Sequence[str], found: Mapping[SearchLeg, Mapping[str, float]]
    ) -> Candidates:
        known = self._score(question, leg, ids)
        kept = [key for key in ids if key in known]
        return Candidates.scored(kept, {leg: np.array([known[key] for key in kept], np.float64)}, found)

    def _found(self, question: Question, legs: Sequence[SearchLeg], plan: Plan) -> dict[SearchLeg, dict[str, float]]:
        return {leg: self._candidates(question, leg, self.candidates, plan.filter) for leg in legs}

    def _candidates(self, question: Question, leg: SearchLeg, k: int, filter: Filter | None) -> dict[str, float]:
        if leg == "bm25":
            return dict(self._bm25.candidates(question.text or "", k=k, filter=filter))
        assert question.output is not None
        return dict(self.store.candidates(question.output, leg, k=k, filter=filter))

    def _score(self, question: Question, leg: SearchLeg, ids: Sequence[str]) -> dict[str, float]:
        if leg == "bm25":
            return self._bm25.score(question.text or "", ids)
        assert question.output is not None
        return self.store.score(question.output, leg, ids)

    @property
    def _bm25(self) -> BM25Leg:
        return cast("BM25Leg", self.bm25)


def _union(found: Mapping[SearchLeg, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for brought in found.values() for key in brought))
