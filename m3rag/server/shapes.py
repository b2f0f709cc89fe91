"""What responses look like: hits, documents and citations as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from m3rag.retrieval.hit_json import hit_json
from m3rag.retrieval.words import WordMatch
from m3rag.types import Citation, Hit


def titled_hit(hit: Hit, *, title: str, words: Sequence[WordMatch] | None = None) -> dict[str, Any]:
    """A hit with the title of its document; with `words` also what it shares with the question, where that stands."""
    found = {**hit_json(hit), "title": title}
    if words is not None:
        found["words"] = [word._asdict() for word in words]
    return found


def citation_json(citation: Citation, *, title: str) -> dict[str, Any]:
    """A citation, with the title of its document."""
    return {**asdict(citation), "title": title}
