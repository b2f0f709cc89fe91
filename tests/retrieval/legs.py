"""A BM25 leg and a reranker small enough to be read: what the retriever is tested with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from m3rag.store.filters import matches
from m3rag.store.protocol import Filter, Store
from m3rag.types import Chunk, Hit


class WordLeg:
    """Lucene's BM25 (k1 = 1.5, b = 0.75) over words between spaces, written out."""

    def __init__(self) -> None:
        self.chunks: dict[str, Chunk] = {}

    def sync(self, store: Store) -> None:
        found = [chunk for document in store.documents() for chunk in store.chunks_of(document.id)]
        self.chunks = {chunk.id: chunk for chunk in found}

    def candidates(self, text: str, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        passing = [id_ for id_, chunk in self.chunks.items() if matches(chunk, filter or {})]
        scored = [(id_, score) for id_, score in self.score(text, passing).items() if score > 0]
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]

    def score(self, text: str, chunk_ids: Sequence[str]) -> dict[str, float]:
        words = {id_: chunk.text.casefold().split() for id_, chunk in self.chunks.items()}
        mean = sum(map(len, words.values())) / max(1, len(words))
        scores = dict.fromkeys((id_ for id_ in chunk_ids if id_ in words), 0.0)
        for word in text.casefold().split():
            n = sum(word in held for held in words.values())
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            for id_ in scores:
                f = words[id_].count(word)
                scores[id_] += idf * f / (f + 1.5 * (1 - 0.75 + 0.75 * len(words[id_]) / mean))
        return scores


class ByLength:
    """A reranker that likes long passages, and looks at the first `top` alone."""

    def __init__(self, top: int = 1000) -> None:
        self.top = top
        self.given: list[int] = []

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        assert query
        self.given.append(len(hits))
        scored = [(float(len(hit.chunk.text)), hit) for hit in hits[: self.top]]
        seen = [replace(hit, score=score, scores=replace(hit.scores, rerank=score)) for score, hit in scored]
        return [*sorted(seen, key=lambda hit: (-hit.score, hit.chunk.id)), *hits[self.top :]][:k]
