"""Searches of a collection with the options that a LangChain call gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from langchain_core.documents import Document

from m3rag.collection import Collection
from m3rag.errors import IndexMissingError, InputError
from m3rag.langchain.documents import scores_of, to_document
from m3rag.langchain.nearest import Found, diverse
from m3rag.langchain.relevance import relevance_of
from m3rag.retrieval import Mode, SearchOptions
from m3rag.retrieval.options import Plan, plan, require_known
from m3rag.store.protocol import Filter
from m3rag.types import Hit

T = TypeVar("T")

OPTIONS = tuple(key for key in SearchOptions.__annotations__ if key not in ("k", "filter"))


@dataclass(frozen=True)
class Search:
    """A collection, and the mode it is searched in unless a call says otherwise.

    Where there is no index yet, nothing is found.
    """

    collection: Collection
    mode: Mode | None

    def hits(self, query: str, k: int, filter: Filter | None, options: Mapping[str, Any]) -> list[Hit]:
        """The best hits for a question.

        A blank one with a filter, such as SelfQueryRetriever asks where the question says no more, finds what passes,
        in no particular order, with score 0.

        Raises:
            InputError: If the question is empty without a filter, a number is out of its range, or an option is
                unknown.
            ConfigurationError: If options do not go together, or need a leg that the model does not give.
        """
        known = self._options(k, filter, options)
        try:
            if _says_nothing(query, filter):
                return self._passing(self._plan(known))
            return self.collection.search(query, **known)
        except IndexMissingError:
            return []

    async def ahits(self, query: str, k: int, filter: Filter | None, options: Mapping[str, Any]) -> list[Hit]:
        """As `hits`; concurrent callers share the model's passes."""
        if _says_nothing(query, filter):
            return await asyncio.to_thread(self.hits, query, k, filter, options)
        try:
            return await self.collection.asearch(query, **self._options(k, filter, options))
        except IndexMissingError:
            return []

    def _passing(self, search: Plan) -> list[Hit]:
        if search.score_threshold is not None and search.score_threshold > 0:
            return []
        chunks, _ = self.collection.store.scan(filter=search.filter, limit=search.k)
        return [Hit(chunk, 0.0) for chunk in chunks]

    def _plan(self, options: Mapping[str, Any]) -> Plan:
        mode = options.get("mode") or self.mode or self.collection.mode
        given = cast("SearchOptions", {**options, "mode": mode})
        return plan(default_weights=self.collection.settings.weights, default_fusion=None, **given)

    def _options(self, k: int, filter: Filter | None, options: Mapping[str, Any]) -> SearchOptions:
        require_known("a search", options, ("k", "filter", *OPTIONS))
        mode = options.get("mode") or self.mode
        return cast("SearchOptions", {**options, "k": k, "filter": filter, "mode": mode})

    def relevant(self, hits: Sequence[Hit], options: Mapping[str, Any]) -> list[tuple[Document, float]]:
        """The Documents of hits that were found with some options, each with its relevance, see `relevance_of`."""
        relevance = relevance_of(self._plan(options))
        return [scored(hit, relevance(hit)) for hit in hits]

    def diverse(self, query: str, hits: Sequence[Hit], k: int, lambda_mult: float) -> list[Document]:
        """The Documents that maximal marginal relevance chooses among hits, see `m3rag.langchain.nearest.diverse`."""
        if not hits:
            return []
        store, ids = self.collection.store, [hit.chunk.id for hit in hits]
        scores = {hit.chunk.id: hit.scores.dense for hit in hits if hit.scores.dense is not None}
        if len(scores) < len(hits):  # the mode looks at no dense vectors
            scores = dict(store.score(self.collection.encoder.encode_queries([query]), "dense", ids))
        found: list[Found] = [(hit.chunk, scores[hit.chunk.id]) for hit in hits if hit.chunk.id in scores]
        return [to_document(chunk) for chunk in diverse(store, found, k=k, lambda_mult=lambda_mult)]


def _says_nothing(query: str, filter: Filter | None) -> bool:
    return bool(filter) and isinstance(query, str) and not query.strip()


def for_mmr(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a search among whose hits MMR will choose.

    Raises:
        InputError: If they ask for the diversity of the search itself too.
    """
    if "diversity" in options:
        raise InputError("diversity is 1 - lambda_mult on another scale: give lambda_mult")
    return options


def several(what: str, given: Iterable[T]) -> list[T]:
    """A list of what is given; one string is no list of its letters, nor a mapping one of its keys.

    Raises:
        InputError: If it is a string, a mapping or no collection.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        kind = "string" if isinstance(given, str) else type(given).__name__
        raise InputError(f"{what} must be a list, got one {kind}: {str(given)[:40]!r}; put it in a list")
    return list(given)


def scored(hit: Hit, score: float) -> tuple[Document, float]:
    """A hit's Document with a score, which is in its metadata too, beside the score of each leg."""
    document = to_document(hit.chunk)
    document.metadata |= {**scores_of(hit), "relevance_score": score}
    return document, score
