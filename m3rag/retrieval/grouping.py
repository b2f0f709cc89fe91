"""Hits by document: at most so many of each, and all of each together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from m3rag.types import Hit


@dataclass(frozen=True, slots=True)
class DocumentHits:
    """The hits of one document.

    Attributes:
        document_id: The document.
        hits: Its hits, in the order they came; at least one.
    """

    document_id: str
    hits: tuple[Hit, ...]

    @property
    def score(self) -> float:
        """The best score among the hits."""
        return max(hit.score for hit in self.hits)


def group_by_document(hits: Iterable[Hit]) -> list[DocumentHits]:
    """Hits by their document, the documents in the order of their first hit.

    Example:
        >>> from m3rag.types import Chunk
        >>> hits = [Hit(Chunk(id=i, document_id=i[0], text="", start=0, end=0), 1.0) for i in ("a1", "b1", "a2")]
        >>> [(group.document_id, len(group.hits)) for group in group_by_document(hits)]
        [('a', 2), ('b', 1)]
    """
    groups: dict[str, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(hit.chunk.document_id, []).append(hit)
    return [DocumentHits(document_id, tuple(held)) for document_id, held in groups.items()]


def at_most_per_document(hits: Iterable[Hit], most: int) -> Iterator[Hit]:
    """The hits in their order, without those that come after `most` others of their document."""
    seen: Counter[str] = Counter()
    for hit in hits:
        seen[hit.chunk.document_id] += 1
        if seen[hit.chunk.document_id] <= most:
            yield hit
