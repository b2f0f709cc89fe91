"""What responses look like: hits, documents and citations as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from m3rag.chunking.parents import without_reserved
from m3rag.retrieval.words import WordMatch
from m3rag.types import Citation, Hit


def hit_json(hit: Hit, *, title: str, words: Sequence[WordMatch] | None = None) -> dict[str, Any]:
    """A hit; with `words` also what it shares with the question, where that stands in its text."""
    chunk = hit.chunk
    found: dict[str, Any] = {
        "document_id": chunk.document_id,
        "title": title,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "headings": list(chunk.headings),
        "metadata": without_reserved(chunk.metadata),
        "chunk_id": chunk.id,
        "score": hit.score,
        "scores": asdict(hit.scores),
        "ranks": asdict(hit.ranks),
        "found_by": list(hit.found_by),
    }
    if words is not None:
        found["words"] = [word._asdict() for word in words]
    return found


def citation_json(citation: Citation, *, title: str) -> dict[str, Any]:
    """A citation, with the title of its document."""
    return {**asdict(citation), "title": title}
