"""HybridRetriever: candidates from the cheap legs, exact scores in every leg, one fused order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from m3rag.encoder.inputs import require_whole
from m3rag.encoder.protocol import AsyncEncoder, Encoder
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.output import M3Output
from m3rag.retrieval.choosing import chosen
from m3rag.retrieval.explain import Explanation, explanations
from m3rag.retrieval.fusion import Fusion, parse_fusion
from m3rag.retrieval.no_hits import NoHits, why_nothing
from m3rag.retrieval.options import Plan, plan
from m3rag.retrieval.stages import Question, Stages
from m3rag.scoring import Weights
from m3rag.store.filters import DOCUMENT_ID
from m3rag.store.protocol import Store
from m3rag.types import Hit

if TYPE_CHECKING:
    from typing import Unpack

    from m3rag.bm25 import BM25Leg
    from m3rag.retrieval.options import SearchOptions

CANDIDATES = 400
RERANK_DEPTH = 100
"""How many chunks get a ColBERT score at the least. The paper takes 200: with `mini` nDCG@10 is the same to four digits
on SciFact, KazQAD and XQuAD (benchmarks/README.md), for half the work."""

PER_HIT = 10
"""Both grow to so many for each hit wanted: among 100,000 real chunks .992 of the best 100 are found
(benchmarks/README.md)."""


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
    - `bm25`, `dense+bm25`: as `lexical` and `dense+lexical`, with BM25 over the words for the keyword
      leg. `bm25` alone encodes nothing.

    Every leg of a mode brings candidates whatever its weight: a weight decides how a chunk is ordered,
    not whether it is looked at, so that changing a weight never changes the scores shown for a chunk.

    Example:
        >>> from m3rag.store.memory import MemoryStore
        >>> from m3rag.testing import HashEncoder
        >>> encoder = HashEncoder()
        >>> HybridRetriever(encoder, MemoryStore(encoder.info)).search("Do ducks swim?")
        []

    Args:
        encoder: Encodes the questions; must be the model that filled the store.
        store: Where to search.
        bm25: The BM25 leg, which is made equal to the store before each search that needs it.
        weights: Of the legs: `Weights`, a preset's name such as `miracl`, or `"1/0.3/1"`. A preset gives
            each mode the weights that the paper has for it.
        fusion: See `m3rag.retrieval.Fusion`; by default `weighted`, and `minmax` where BM25 is fused.
        candidates: How many chunks each leg of a first stage brings. By default 400, and 10 `k` where that
            is more, so that the best 100 come from 1,000 as in the paper.
        rerank_depth: How many chunks of the first order get a ColBERT score in mode `all`. By default
            100, and 10 `k` where that is more: the best 100 by all three legs are not all among the best
            200 by two.
        exhaustive_limit: Up to how many chunks mode `colbert` compares with all of them.
        grows: Whether depths that are given grow too where `k` needs more. Without, they hold, and a search
            may give fewer hits: to measure what such a depth finds.

    Raises:
        ConfigurationError: If an option is malformed or not positive.
        IndexMismatchError: If the store was filled by another model.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        *,
        bm25: BM25Leg | None = None,
        weights: Weights | str = "miracl",
        fusion: Fusion | None = None,
        candidates: int | None = None,
        rerank_depth: int | None = None,
        exhaustive_limit: int = 2000,
        grows: bool = True,
    ) -> None:
        depth = RERANK_DEPTH if rerank_depth is None else rerank_depth
        brought = CANDIDATES if candidates is None else candidates
        require_whole("candidates", brought, least=1)
        require_whole("rerank_depth", depth, least=1)
        require_whole("exhaustive_limit", exhaustive_limit, least=0)
        made_by = store.manifest.model
        if made_by.fingerprint != encoder.info.fingerprint:
            raise IndexMismatchError(
                f"the index was made by the model {made_by.name!r} ({made_by.fingerprint}), the encoder is "
                f"{encoder.info.name!r} ({encoder.info.fingerprint}): search with the index's model, or rebuild "
                "the index with `m3rag rebuild`"
            )
        Weights.parse(weights)  # a wrong name is said now, though what it means depends on the mode
        self.encoder = encoder
        self.store = store
        self.bm25 = bm25
        self.weights = weights
        self.fusion = None if fusion is None else parse_fusion(fusion)
        self.candidates = brought
        self.rerank_depth = depth
        self.exhaustive_limit = exhaustive_limit
        self._given = candidates is not None, rerank_depth is not None
        self._grows = grows or not any(self._given)

    def search(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The best chunks for a question.

        Args:
            query: The question.
            **options: See `m3rag.retrieval.SearchOptions`: `k`, `mode`, `filter`, `weights` or `alpha`,
                `fusion`, `rrf_k`, `score_threshold`, `diversity`, `group_by_document`, `reranker`,
                `rerank_top`.

        Returns:
            Hits, best first, ties by chunk id (with `diversity` in the order of choice); `why_empty`
            tells why there are none. `hit.scores` are exact in every leg that the mode looks at and
            None in the others; `hit.ranks` are the ranks, from 1, among all candidates that were
            scored in the leg; `hit.found_by` names the legs whose candidates held the chunk.
            `hit.score` is on the scale of the fusion (`weighted`: the weighted mean of the legs'
            scores; `minmax`: [0, 1]; `zscore`: standard deviations; `rrf`: at most .05), or of the
            reranker.

        Raises:
            InputError: If the query is empty, or a number is out of its range.
            ConfigurationError: If mode, weights or fusion are unknown, give all legs weight 0, do not
                go together, or need a leg that is not there.
        """
        search = self._plan(_text(query), options)
        return self._hits(self._question(query, search), search)

    async def asearch(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """As `search`, without blocking the event loop; concurrent callers share forward passes.

        They do where the encoder is an `AsyncEncoder`; another one encodes on a thread.
        """
        search = await asyncio.to_thread(self._plan, _text(query), options)
        if isinstance(self.encoder, AsyncEncoder) and search.mode.model_legs:
            question = Question(query, await self.encoder.aencode_queries([query]))
        else:
            question = await asyncio.to_thread(self._question, query, search)
        return await asyncio.to_thread(self._hits, question, search)

    def search_output(self, query: M3Output, *, text: str | None = None, **options: Unpack[SearchOptions]) -> list[Hit]:
        """As `search`, for a question that is already encoded (an output of one text).

        Args:
            query: The encoded question.
            text: The question itself, which BM25 and rerankers need.
            **options: As in `search`.

        Raises:
            InputError: If the output does not hold exactly one text, the text is needed and not given,
                or a number is out of its range.
            ConfigurationError: As in `search`.
        """
        if len(query) != 1:
            raise InputError(f"search_output takes one encoded query, got {len(query)}: pass output[i] for each")
        search = self._plan(text, options)
        if not text and (search.mode.needs_bm25 or search.reranker is not None):
            raise InputError("BM25 and rerankers read the question itself: give search_output(..., text=question)")
        return self._hits(Question(text, query), search)

    def why_empty(self, query: str, **options: Unpack[SearchOptions]) -> NoHits | None:
        """Why a search finds nothing; None where it does find something.

        Args:
            query: The question.
            **options: As in `search`.

        Raises:
            InputError, ConfigurationError: As `search`.
        """
        search = self._plan(_text(query), options)
        return why_nothing(self.store, search, lambda other: self._hits(self._question(query, other), other))

    def explain(
        self, query: str, hits: Hit | Sequence[Hit], *, limit: int | None = 5, alignment: bool = False
    ) -> list[Explanation]:
        """What in the question and in each hit is behind its lexical and its ColBERT score.

        Args:
            query: The question.
            hits: One hit or several; anything stored here.
            limit: Most shared tokens of each; None for all, whose contributions then sum to the
                lexical score.
            alignment: Also align the tokens as ColBERT does, which encodes each hit again.

        Raises:
            ConfigurationError: If the model, or with `alignment` the encoder, cannot tell.
        """
        several = [hits] if isinstance(hits, Hit) else list(hits)
        return explanations(self.encoder, self.store, query, several, limit=limit, alignment=alignment)

    def _plan(self, query: str | None, options: SearchOptions) -> Plan:
        """What is wrong with a search is said before the encoder is put to work."""
        if query is not None and not query.strip():
            raise InputError("the query is empty: ask a question of at least one word")
        search = plan(default_weights=self.weights, default_fusion=self.fusion, **options)
        search.mode.check(self.store.manifest.model)
        if search.mode.needs_bm25 and self.bm25 is None:
            raise ConfigurationError(
                f"mode {search.mode.value!r} needs the BM25 leg, which this retriever was not given: "
                "make it with HybridRetriever(..., bm25=BM25Leg(...)), or choose mode='dense+lexical'"
            )
        return search

    def _question(self, query: str, search: Plan) -> Question:
        return Question(query, self.encoder.encode_queries([query]) if search.mode.model_legs else None)

    def _hits(self, question: Question, search: Plan) -> list[Hit]:
        if search.mode.needs_bm25 and self.bm25 is not None:
            self.bm25.sync(self.store)
        brought, depth = self.depths(search.k, at_least=search.depth)
        stages = Stages(self.store, self.bm25, brought, depth, self.exhaustive_limit)
        found = stages.scored(question, search)
        hits = chosen(self.store, question.text, found, search)
        # Another look would bring more than the depths say.
        looks_again = self._grows or len(search.mode.legs) == 1
        while looks_again and len(hits) < search.k and (full := _full(hits, search)):
            # Chunks of a few documents may have taken all places: look once more, beside these documents.
            given = search.filter or {}
            rest = {**given, "$and": [*given.get("$and", ()), {DOCUMENT_ID: {"$nin": full}}]}  # no level deeper
            found = found.united(stages.scored(question, replace(search, filter=rest)))
            before, hits = len(hits), chosen(self.store, question.text, found, search)
            if len(hits) <= before:
                break
        return hits

    def depths(self, k: int, *, at_least: int = 1) -> tuple[int, int]:
        """How many chunks a search for `k` hits takes from each leg, and how many of those get a ColBERT score.

        Args:
            k: Hits wanted.
            at_least: What is looked at for another reason, such as a reranker's; depths that grow reach it.
        """

        def reach(least: int, *, given: bool) -> int:
            if given:
                return max(least, at_least) if self._grows else least
            return max(least, PER_HIT * k, at_least)

        return reach(self.candidates, given=self._given[0]), reach(self.rerank_depth, given=self._given[1])


def _full(hits: Sequence[Hit], search: Plan) -> list[str]:
    """The documents that have all the hits they may have."""
    counts = Counter(hit.chunk.document_id for hit in hits)
    return [document for document, n in counts.items() if n == search.group_by_document]


def _text(query: object) -> str:
    if not isinstance(query, str):
        raise InputError(f"the query is of type {type(query).__name__}, must be a text")
    return query
