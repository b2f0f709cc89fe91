"""One search for all of LlamaIndex's ways to ask: a text, an embedding, filters of any operator, node ids."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.errors import InputError
from m3rag.llama_index.filters import Condition
from m3rag.output import M3Output
from m3rag.retrieval import Mode
from m3rag.store.filters import EVERYTHING, holds, parse_filter
from m3rag.types import Chunk

if TYPE_CHECKING:
    from m3rag.bm25 import BM25Leg
    from m3rag.collection import Collection
    from m3rag.retrieval import HybridRetriever, SearchOptions
    from m3rag.store.protocol import Filter, Store
    from m3rag.types import Hit, ModelInfo

READ_AT_ONCE = 1_000
"""Chunks read together where each must be looked at."""


@dataclass(frozen=True)
class Search:
    """What is asked of a collection.

    Attributes:
        collection: Where to search.
        text: The question; None where the embedding alone is given, which the mode `dense` can do with.
        embedding: Takes the place of the question's dense vector, such as a hypothetical answer's.
        condition: What chunks must fulfil.
        ids: The only chunks that count; None for all.
        candidates: How many chunks each leg brings at least; None for the retriever's default.
        options: As for `Collection.search`, but for the filter.
    """

    collection: Collection
    text: str | None
    condition: Condition
    embedding: Sequence[float] | None = None
    ids: Sequence[str] | None = None
    candidates: int | None = None
    options: SearchOptions = field(default_factory=lambda: cast("SearchOptions", {}))

    @property
    def plain(self) -> bool:
        """Whether the collection can answer it by itself."""
        return (
            self.text is not None
            and self.embedding is None
            and self.ids is None
            and self.candidates is None
            and self.condition.exact
        )

    def run(self) -> list[Hit]:
        """The hits, best first.

        Raises:
            InputError: If the question is empty, there is neither text nor embedding, the mode or a reranker needs
                the text and there is none, or the embedding is of another dimension than the collection's.
            ConfigurationError: If the mode needs what the model does not give.
        """
        if self.plain:
            return self.collection.search(self.text or "", **self._options())
        retriever, options = self.collection.prepared(self._options())
        if self.candidates is not None:
            retriever.candidates = max(retriever.candidates, self.candidates)
        if self.ids is not None or not self.condition.exact:
            ids = self._passing(retriever.store)
            if not ids:
                return []
            _limit(retriever, ids)
            options["filter"] = None
        if self.embedding is None and self.text is None:
            raise InputError("there is nothing to search for: give query_str, or query_embedding")
        mode = Mode.parse(options.get("mode") or Mode.ALL)
        mode.check(retriever.encoder.info)
        if self.embedding is not None and not self.text:
            _require_no_text(mode, options)
        if self.embedding is None or "dense" not in mode.legs:
            return retriever.search(self.text or "", **options)
        question = self._encoded(retriever, mode, self.embedding)
        # A bundle that has but its embedding says "" for the text.
        return retriever.search_output(question, text=self.text or None, **options)

    async def arun(self) -> list[Hit]:
        """As `run`, without blocking the event loop; where it can, sharing forward passes with others."""
        if self.plain:
            return await self.collection.asearch(self.text or "", **self._options())
        return await asyncio.to_thread(self.run)

    def _options(self) -> SearchOptions:
        options = self.options.copy()
        if self.condition.filter:
            options["filter"] = self.condition.filter
        return options

    def _passing(self, store: Store) -> list[str]:
        return [chunk.id for chunk in chunks_where(store, self.condition, self.ids)]

    def _encoded(self, retriever: HybridRetriever, mode: Mode, embedding: Sequence[float]) -> M3Output:
        dense = unit([embedding], retriever.store.manifest.model)
        if mode.model_legs == ("dense",):
            return _dense_alone(dense, retriever.store.manifest.model)
        return replace(retriever.encoder.encode_queries([self.text or ""]), dense=dense)


def unit(embeddings: Sequence[Sequence[float]], model: ModelInfo) -> npt.NDArray[np.float32]:
    """Embeddings as dense vectors of a model, `(n, d)` float32 of unit length.

    Raises:
        InputError: If one is of another dimension, or not finite.
    """
    for one in embeddings:
        if len(one) != model.dense_dim:
            raise InputError(
                f"an embedding has {len(one)} dimensions, but the index those of {model.name}, {model.dense_dim}: "
                "use the embedding model that the index was made with"
            )
    vectors = np.array(embeddings, np.float32).reshape(-1, model.dense_dim)
    if not np.isfinite(vectors).all():
        raise InputError("an embedding holds an infinity or NaN: look at the embedding model")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def several(what: str, ids: Sequence[str]) -> list[str]:
    """A list of ids; one string is no list of its letters.

    Raises:
        InputError: If it is a string.
    """
    if isinstance(ids, str):
        raise InputError(f"{what} must be a list, got one string: {ids[:40]!r}; put it in a list")
    return list(ids)


def chunks_where(store: Store, condition: Condition, ids: Sequence[str] | None = None) -> Iterator[Chunk]:
    """The chunks that fulfil a condition, of those named, in their order, or of all.

    Raises:
        InputError: If the ids are one string.
    """
    if ids is not None:
        named = list(dict.fromkeys(several("node_ids", ids)))
        yield from (chunk for chunk in store.get(named) if condition.test(chunk))
        return
    cursor: str | None = None
    while True:
        chunks, cursor = store.scan(filter=condition.filter or None, limit=READ_AT_ONCE, cursor=cursor)
        yield from (chunk for chunk in chunks if condition.exact or condition.test(chunk))
        if cursor is None:
            return


def _require_no_text(mode: Mode, options: SearchOptions) -> None:
    if mode is not Mode.DENSE:
        raise InputError(
            f"mode {mode.value!r} reads the question itself: give query_str beside query_embedding, or choose "
            "the query mode 'default'"
        )
    if options.get("reranker") is not None:
        raise InputError("the reranker reads the question itself: give query_str beside query_embedding")


def _dense_alone(dense: npt.NDArray[np.float32], model: ModelInfo) -> M3Output:
    other = M3Output.empty(dense_dim=model.dense_dim, vocab_size=model.vocab_size, colbert_dim=model.colbert_dim)
    lexical = csr_array(np.zeros((1, model.vocab_size), np.float32))
    return M3Output(dense=dense, lexical=lexical, colbert=other.colbert, offsets=np.zeros(2, np.int64))


def _limit(retriever: HybridRetriever, ids: Sequence[str]) -> None:
    store = retriever.store
    retriever.store = cast("Store", _Among(store, store, ids))
    if retriever.bm25 is not None:
        retriever.bm25 = cast("BM25Leg", _Among(retriever.bm25, store, ids))


class _Among:
    """A store or a BM25 leg of which some chunks alone count: these are scored, exactly, instead of looked for."""

    def __init__(self, inner: Any, store: Store, ids: Sequence[str]) -> None:
        self._inner = inner
        self._store = store
        self._ids = list(ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def count(self, *, filter: Filter | None = None) -> int:
        """How many may count."""
        return len(self._passing(filter))

    def candidates(self, *question: Any, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best of them; of 0 but in the dense leg are those that share no token, or have none: not found."""
        scores: Mapping[str, float] = self._inner.score(*question, self._passing(filter))
        dense = question[1:] == ("dense",)  # BM25 is asked with the text alone
        ranked = sorted((-score, key) for key, score in scores.items() if score != 0 or dense)
        return [(key, -score) for score, key in ranked[:k]]

    def _passing(self, filter: Filter | None) -> list[str]:
        """Those that pass a filter too: beside documents that have all the hits they may, it is searched again."""
        condition = parse_filter(filter)
        if condition == EVERYTHING:
            return self._ids
        return [chunk.id for chunk in self._store.get(self._ids) if holds(condition, chunk)]
