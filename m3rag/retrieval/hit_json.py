"""A hit as JSON, as the command line and the server show it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from m3rag.chunking.parents import without_reserved
from m3rag.types import Hit


def hit_json(hit: Hit) -> dict[str, Any]:
    """What was found, where it stands, and its score and rank in each leg; JSON values, without reserved metadata."""
    chunk = hit.chunk
    return {
        "document_id": chunk.document_id,
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
