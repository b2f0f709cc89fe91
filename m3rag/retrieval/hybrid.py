"""HybridRetriever: candidates from the cheap legs, exact scores in every leg, one fused order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.output import M3Output
from m3rag.retrieval.fusion import Candidates, Fusion, order_of, parse_fusion
from m3rag.retrieval.mode import Mode
from m3rag.scoring import Weights
from m3rag.store.protocol import Filter, Store
from m3rag.types import Hit, Leg, LegRanks, LegScores

FIRST_STAGE: tuple[Leg, ...] = ("dense", "lexical")


class HybridRetriever:
    """Search a store with one leg of M3, or with several fused.

    The modes:

    - `dense`, `lexical`: the best `k` of that leg alone.
    - `dense+lexical`: the best `candidates` of each of the two, united; every one of them then gets
      its exact score in both legs, and the fused scores order them.
    - `all`: the same, then the best `rerank_depth` of that order get their exact ColBERT scores, and
      the three fused scores order those. This is the paper's "All" (section 4).
    - `colbert`: exact MaxSim over every chunk while at most `exhaustive_limit` chunks pass the
      filter; beyond that MaxSim over all is too dear, and only the union of the best `candidates`
      of the dense and of the lexical leg is scored.

    Both legs bring candidates whatever their weights: a weight decides how a chunk is ordered, not
    whether it is looked at, so that changing a weight never changes the scores shown for a chunk.

    Example:
        >>> from m3rag.store.memory import MemoryStore
        >>> from m3rag.testing import HashEncoder
        >>> encoder = HashEncoder()
        >>> HybridRetriever(encoder, MemoryStore(encoder.info)).search("Do ducks swim?")
        []

    Args:
        encoder: Encodes the questions; must be the model that filled the store.
        store: Where to search.
        weights: Of the legs: `Weights`, a preset's name such as `miracl`, or `"1/0.3/1"`.
        fusion: `weighted` sums the exact scores; `rrf` sums reciprocal ranks (with the same weights).
        candidates: How many chunks each of the dense and the lexical leg brings.
        rerank_depth: How many chunks of the first order get a ColBERT score in mode `all`.
        exhaustive_limit: Up to how many chunks mode `colbert` compares with all of them.

    Raises:
        ConfigurationError: If an option is malformed or not positive.
        IndexMismatchError: If the store was filled by another model.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        *,
        weights: Weights | str = "miracl",
        fusion: Fusion = "weighted",
        candidates: int = 1000,
        rerank_depth: int = 200,
        exhaustive_limit: int = 2000,
    ) -> None:
        if min(candidates, rerank_depth) < 1 or exhaustive_limit < 0:
            raise ConfigurationError(
                f"candidates and rerank_depth must be at least 1 and exhaustive_limit at least 0, "
                f"got {candidates}, {rerank_depth} and {exhaustive_limit}"
            )
        made_by = store.manifest.model
        if made_by.fingerprint != encoder.info.fingerprint:
            raise IndexMismatchError(
                f"the index was made by the model {made_by.name!r} ({made_by.fingerprint}), the encoder is "
                f"{encoder.info.name!r} ({encoder.info.fingerprint}): search with the index's model, or rebuild "
                "the index with `m3rag rebuild`"
            )
        self.encoder = encoder
        self.store = store
        self.weights = Weights.parse(weights)
        self.fusion: Fusion = parse_fusion(fusion)
        self.candidates = candidates
        self.rerank_depth = rerank_depth
        self.exhaustive_limit = exhaustive_limit

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        mode: Mode | str = Mode.ALL,
        filter: Filter | None = None,
        weights: Weights | str | None = None,
        fusion: Fusion | None = None,
    ) -> list[Hit]:
        """The best `k` chunks for a question.

        Args:
            query: The question.
            k: Most hits to return; >= 1. Where it exceeds `candidates` or `rerank_depth`, these grow
                with it.
            mode: Which legs to look at.
            filter: Conditions on the chunks' metadata.
            weights: For this search, instead of the retriever's.
            fusion: For this search, instead of the retriever's.

        Returns:
            Hits, best first, ties by chunk id; empty if nothing passes the filter or, in mode
            `lexical`, shares a token with the question. `hit.scores` are exact in every leg that the
            mode looks at and None in the others; `hit.ranks` are the ranks, from 1, among all
            candidates that were scored in the leg. `hit.score` is on the scale of the legs
            (`weighted`: their weighted mean) or of reciprocal ranks (`rrf`: at most .05).

        Raises:
            InputError: If the query is empty, or `k` is not positive.
            ConfigurationError: If mode, weights or fusion are unknown, give all legs weight 0, or need
                a leg that the model does not give.
        """
        if not query.strip():
            raise InputError("the query is empty: ask a question of at least one word")
        # What is wrong with the options is said before the encoder is put to work.
        self._check(k=k, mode=Mode.parse(mode), weights=self._weights(weights))
        output = self.encoder.encode_queries([query])
        return self.search_output(output, k=k, mode=mode, filter=filter, weights=weights, fusion=fusion)

    def search_output(
        self,
        query: M3Output,
        *,
        k: int = 10,
        mode: Mode | str = Mode.ALL,
        filter: Filter | None = None,
        weights: Weights | str | None = None,
        fusion: Fusion | None = None,
    ) -> list[Hit]:
        """As `search`, for a question that is already encoded (an output of one text).

        Raises:
            InputError: If the output does not hold exactly one text, or `k` is not positive.
            ConfigurationError: As in `search`.
        """
        if len(query) != 1:
            raise InputError(f"search_output takes one encoded query, got {len(query)}: pass output[i] for each")
        mode, used = Mode.parse(mode), self._weights(weights)
        self._check(k=k, mode=mode, weights=used)
        how = self.fusion if fusion is None else parse_fusion(fusion)
        found = self._scored(query, mode, k=k, filter=filter, weights=used, fusion=how)
        return self._hits(found, k=k, weights=used, fusion=how)

    def _weights(self, weights: Weights | str | None) -> Weights:
        return self.weights if weights is None else Weights.parse(weights)

    def _check(self, *, k: int, mode: Mode, weights: Weights) -> None:
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        mode.check(self.store.manifest.model)
        if not any(weights.of(leg) for leg in mode.legs):
            raise ConfigurationError(
                f"mode {mode.value!r} looks only at {' and '.join(mode.legs)}, of weight 0 in {weights}: "
                "give a weight above 0 to one of its legs, or choose another mode"
            )

    def _scored(
        self, query: M3Output, mode: Mode, *, k: int, filter: Filter | None, weights: Weights, fusion: Fusion
    ) -> Candidates:
        """The candidates of a mode, with an exact score in every leg of it."""
        if mode in (Mode.DENSE, Mode.LEXICAL):
            return self._best(query, mode.legs[0], k=k, filter=filter)
        if mode is Mode.COLBERT:
            if self.store.count(filter=filter) <= self.exhaustive_limit:
                return self._best(query, "colbert", k=k, filter=filter)
            return self._exact(query, mode.legs, self._union(query, k=k, filter=filter))
        first = self._exact(query, FIRST_STAGE, self._union(query, k=k, filter=filter))
        if mode is Mode.DENSE_LEXICAL:
            return first
        # Weights that count ColBERT alone still need some order of what to rerank.
        known = weights if weights.dense + weights.lexical > 0 else Weights()
        order = order_of(first.fused(known, fusion=fusion), first.ids)[: max(self.rerank_depth, k)]
        return first.joined(self._exact(query, ("colbert",), [first.ids[i] for i in order]))

    def _best(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None) -> Candidates:
        pairs = self.store.candidates(query, leg, k=k, filter=filter)
        scores = np.array([score for _, score in pairs], np.float64)
        return Candidates.scored([key for key, _ in pairs], {leg: scores})

    def _union(self, query: M3Output, *, k: int, filter: Filter | None) -> list[str]:
        n = max(self.candidates, k)
        found = (self.store.candidates(query, leg, k=n, filter=filter) for leg in FIRST_STAGE)
        return list(dict.fromkeys(key for pairs in found for key, _ in pairs))

    def _exact(self, query: M3Output, legs: Sequence[Leg], ids: Sequence[str]) -> Candidates:
        by_leg = {leg: self.store.score(query, leg, ids) for leg in legs}
        # A chunk deleted since it was found has no score in some leg, and is no longer a candidate.
        ids = [key for key in ids if all(key in scores for scores in by_leg.values())]
        return Candidates.scored(
            ids, {leg: np.array([scores[key] for key in ids], np.float64) for leg, scores in by_leg.items()}
        )

    def _hits(self, found: Candidates, *, k: int, weights: Weights, fusion: Fusion) -> list[Hit]:
        fused = found.fused(weights, fusion=fusion)
        best = order_of(fused, found.ids)[:k]
        chunks = {chunk.id: chunk for chunk in self.store.get([found.ids[i] for i in best])}
        return [
            Hit(
                chunk=chunks[found.ids[i]],
                score=float(fused[i]),
                scores=LegScores(**{leg: float(scores[i]) for leg, scores in found.scores.items()}),
                ranks=LegRanks(**{leg: ranked[found.ids[i]] for leg, ranked in found.ranks.items()}),
            )
            for i in best
            if found.ids[i] in chunks
        ]
