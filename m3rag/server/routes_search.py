"""Status, search, highlights and feedback."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from m3rag.retrieval.words import WordMatch
from m3rag.server.engine import Engine
from m3rag.server.leaving import EndsWithClient
from m3rag.server.schemas import FeedbackBody, HighlightsBody, SearchBody
from m3rag.server.shapes import titled_hit


def routes(engine: Engine) -> APIRouter:
    """The routes over an engine."""
    router = APIRouter(prefix="/api", tags=["search"], route_class=EndsWithClient)

    @router.get("/status")
    async def status() -> dict[str, Any]:
        """What this server is."""
        return await asyncio.to_thread(engine.status)

    @router.post("/search")
    async def search(body: SearchBody) -> dict[str, Any]:
        """The best passages for a question; without any, why."""
        hits, why = await engine.search(body.query, body.options())
        words: Sequence[Sequence[WordMatch] | None] = [None] * len(hits)
        if body.explain:
            words = await engine.words(body.query, hits)
        titles = await asyncio.to_thread(engine.titles, [hit.chunk.document_id for hit in hits])
        return {
            "hits": [
                titled_hit(hit, title=titles[hit.chunk.document_id], words=of)
                for hit, of in zip(hits, words, strict=True)
            ],
            "no_hits": asdict(why) if why is not None else None,
        }

    @router.post("/highlights")
    async def highlights(body: HighlightsBody) -> dict[str, Any]:
        """Which words of a passage matched a question: [start, end, strength 1 to 3] in its text."""
        return await engine.highlights(body.query, body.chunk_id)

    @router.post("/feedback", status_code=204)
    async def feedback(body: FeedbackBody) -> Response:
        """Keep what somebody thinks of an answer."""
        await asyncio.to_thread(engine.feedback.add, body.model_dump())
        return Response(status_code=204)

    return router
