"""What tuning looks at: for each question its candidates with their exact scores in all three legs.

They are computed once. Whatever the weights, a search in mode `all` orders some of these chunks, so
that its quality under any weights is arithmetic on these scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3rag.errors import InputError
from m3rag.evaluation.labelled import Judgements, LabelledQuestion, Level, Unit, judgements, unit_of
from m3rag.evaluation.metrics import parse_metric
from m3rag.output import M3Output
from m3rag.retrieval import HybridRetriever
from m3rag.scoring import Weights
from m3rag.store.protocol import Store
from m3rag.types import Chunk, Leg

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

FIRST_STAGE: tuple[Leg, ...] = ("dense", "lexical")

BLOCK = 64
"""Questions encoded at a time: it bounds memory, never a result."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One question's candidates, grouped by unit (document, page or chunk), and which are relevant.

    Attributes:
        question: The question.
        chunk_ids: `n` chunks, those of one unit one after the other, units and chunks in order of id.
        scores: `(n, 3)` exact scores, legs in the order of `LEGS`.
        starts: `(u,)` where each unit begins among the chunks.
        relevant: `(r,)` positions of the relevant units among the `u`.
        gains: `(r,)` their gains.
        ideal: Gains of all relevant units of the index, found or not, largest first.
        depth: How many chunks of the dense and lexical order get a ColBERT score in a search.
    """

    question: LabelledQuestion
    chunk_ids: tuple[str, ...]
    scores: Floats
    starts: npt.NDArray[np.int64]
    relevant: npt.NDArray[np.int64]
    gains: Floats
    ideal: Floats
    depth: int

    @classmethod
    def of(
        cls,
        question: LabelledQuestion,
        judged: Judgements,
        units: Sequence[Unit],
        chunk_ids: Sequence[str],
        scores: Floats,
        *,
        depth: int,
    ) -> Judged:
        """Group chunks by their units; arguments in the order of the chunks."""
        order = sorted(range(len(chunk_ids)), key=lambda i: (units[i], chunk_ids[i]))
        starts = [at for at, i in enumerate(order) if at == 0 or units[order[at - 1]] != units[i]]
        named = [units[order[at]] for at in starts]
        relevant = [at for at, unit in enumerate(named) if unit in judged.gains]
        return cls(
            question=question,
            chunk_ids=tuple(chunk_ids[i] for i in order),
            scores=scores[order],
            starts=np.array(starts, np.int64),
            relevant=np.array(relevant, np.int64),
            gains=np.array([judged.gains[named[at]] for at in relevant], np.float64),
            ideal=np.array(sorted(judged.gains.values(), reverse=True), np.float64),
            depth=depth,
        )

    def fused(self, weights: Floats) -> Floats:
        """Fused scores under `(w, 3)` weights: `(n, w)`, -inf where a search would not get as far as ColBERT."""
        # Sums term by term: a matrix product may round two equal rows differently, and undo a tie.
        first = self.scores[:, :1] * weights[:, 0] + self.scores[:, 1:2] * weights[:, 1]
        fused: Floats = first + self.scores[:, 2:] * weights[:, 2]
        if len(fused) > self.depth:
            bare = weights[:, 0] + weights[:, 1] <= 0
            known = Weights()  # what the retriever orders by where ColBERT alone counts
            first[:, bare] = self.scores[:, :1] * known.dense + self.scores[:, 1:2] * known.lexical
            by_id = np.array(sorted(range(len(fused)), key=self.chunk_ids.__getitem__), np.int64)
            order = np.argsort(-first[by_id], axis=0, kind="stable")
            np.put_along_axis(fused, by_id[order[self.depth :]], -np.inf, axis=0)
        return fused

    def values(self, weights: Floats, metric: str) -> Floats:
        """The metric under each of `(w, 3)` weights: `(w,)`.

        A unit stands where its best chunk does. Ties are broken by the chunk's id, as in a search.
        """
        function, k = parse_metric(metric)
        if not len(self.relevant):
            return np.zeros(len(weights))
        fused = self.fused(weights)
        units = np.maximum.reduceat(fused, self.starts, axis=0)  # (u, w)
        first = self._first(fused, units)
        gains = np.zeros((len(weights), min(k, len(units))))
        for position, gain in zip(self.relevant, self.gains, strict=True):
            own = units[position]
            ahead = ((units > own) | ((units == own) & (first < first[position]))).sum(axis=0)
            seen = np.flatnonzero((ahead < k) & (own > -np.inf))
            gains[seen, ahead[seen]] = gain
        # Over a whole grid of weights there are few different rankings of the relevant units.
        patterns, which = np.unique(gains, axis=0, return_inverse=True)
        values = np.array([function(pattern, self.ideal, k) for pattern in patterns])
        return values[which.reshape(-1)]

    def _first(self, fused: Floats, units: Floats) -> npt.NDArray[np.int64]:
        """Where the first of each unit's best chunks stands in the order of all ids: `(u, w)`."""
        n = len(self.chunk_ids)
        places = np.empty(n, np.int64)
        places[sorted(range(n), key=self.chunk_ids.__getitem__)] = np.arange(n)
        best = fused == np.repeat(units, np.diff(self.starts, append=n), axis=0)
        first: npt.NDArray[np.int64] = np.minimum.reduceat(np.where(best, places[:, None], n), self.starts, axis=0)
        return first


def collect(
    retriever: HybridRetriever,
    questions: Sequence[LabelledQuestion],
    *,
    skip_missing: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Judged], list[str]]:
    """Encode the questions and score their candidates.

    Args:
        retriever: Where to search, and how deep.
        questions: The questions.
        skip_missing: Leave out what is not in the index, and questions of which nothing is left.
        progress: Called with the number of questions done and of all.

    Returns:
        The questions in order, and the ids of those left out.

    Raises:
        InputError: If something relevant is not in the index and `skip_missing` is not set, before
            anything is encoded.
    """
    judged = [judgements(question, retriever.store) for question in questions]
    missing = [(question, j.missing) for question, j in zip(questions, judged, strict=True) if j.missing]
    if missing and not skip_missing:
        shown = "; ".join(f"{question.id}: {', '.join(what[:3])}" for question, what in missing[:3])
        raise InputError(
            f"{len(missing)} of {len(questions)} questions call something relevant that is not in the index "
            f"({shown}{'; ...' if len(missing) > 3 else ''}): `m3rag list` names the documents; mend the labels, or "
            "skip what is missing (skip_missing=True, --skip-missing)"
        )
    kept = [(question, j) for question, j in zip(questions, judged, strict=True) if j.gains]
    found: list[Judged] = []
    units = _Units(retriever.store)
    for start in range(0, len(kept), BLOCK):
        block = kept[start : start + BLOCK]
        outputs = retriever.encoder.encode_queries([question.query for question, _ in block])
        for output, (question, j) in zip(outputs, block, strict=True):
            ids, scores = _candidates(retriever, output)
            of_chunks = units.of(ids, j.level)
            there = [i for i, unit in enumerate(of_chunks) if unit is not None]
            grouped = [unit for unit in of_chunks if unit is not None]
            chunk_ids = [ids[i] for i in there]
            found.append(Judged.of(question, j, grouped, chunk_ids, scores[there], depth=retriever.rerank_depth))
            if progress:
                progress(len(found), len(kept))
    return found, [question.id for question, j in zip(questions, judged, strict=True) if not j.gains]


def _candidates(retriever: HybridRetriever, query: M3Output) -> tuple[list[str], Floats]:
    """All chunks that a search may give a ColBERT score under some weights, and `(n, 3)` scores."""
    store, n = retriever.store, retriever.candidates
    found = {leg: dict(store.candidates(query, leg, k=n)) for leg in FIRST_STAGE}
    ids = sorted({key for of_leg in found.values() for key in of_leg})
    for leg, of_leg in found.items():
        missing = [key for key in ids if key not in of_leg]
        of_leg.update(store.score(query, leg, missing) if missing else {})
    ids = [key for key in ids if all(key in of_leg for of_leg in found.values())]  # none deleted meanwhile
    pairs = np.array([[of_leg[key] for of_leg in found.values()] for key in ids], np.float64).reshape(-1, 2)
    near = reachable(pairs, retriever.rerank_depth).tolist()
    colbert = store.score(query, "colbert", [ids[i] for i in near])
    near = [i for i in near if ids[i] in colbert]
    third = np.array([colbert[ids[i]] for i in near], np.float64).reshape(-1, 1)
    return [ids[i] for i in near], np.hstack([pairs[near], third])


def reachable(scores: Floats, depth: int) -> npt.NDArray[np.int64]:
    """Which rows are among the best `depth` of a weighted sum for some weights >= 0.

    At least those: a row is left out only if `depth` others are ahead of it whatever the weights.

    Args:
        scores: `(n, 2)`, in the order of the ids that break ties.
        depth: How many are looked at.
    """
    n = len(scores)
    if n <= depth:
        return np.arange(n)
    at_least = (scores[:, None] <= scores[None]).all(axis=2)  # [i, j]: j is nowhere below i
    above = (scores[:, None] < scores[None]).all(axis=2)
    earlier = np.tri(n, k=-1, dtype=bool)
    return np.flatnonzero((at_least & (above | earlier)).sum(axis=1) < depth)


class _Units:
    """The units of chunks; one chunk is a candidate of many questions, and is fetched once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, dict[Level, Unit]] = {}

    def of(self, ids: Sequence[str], level: Level) -> list[Unit | None]:
        """The unit of each chunk, None where it has been deleted meanwhile."""
        new = [key for key in ids if key not in self._known]
        self._known |= {chunk.id: _units(chunk) for chunk in (self._store.get(new) if new else ())}
        return [self._known[key][level] if key in self._known else None for key in ids]


def _units(chunk: Chunk) -> dict[Level, Unit]:
    return {level: unit_of(chunk, level) for level in ("document", "page", "chunk")}
