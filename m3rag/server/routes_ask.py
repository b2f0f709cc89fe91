"""Questions, answered as a stream of events."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from m3rag.server.engine import Engine
from m3rag.server.errors import told
from m3rag.server.schemas import AskBody
from m3rag.server.shapes import citation_json, titled_hit
from m3rag.server.streaming import STREAM, event, streamed


def routes(engine: Engine) -> APIRouter:
    """The route over an engine."""
    router = APIRouter(prefix="/api", tags=["ask"])

    @router.post("/ask", response_class=StreamingResponse, responses=STREAM)
    async def ask(body: AskBody) -> StreamingResponse:
        """An answer: events `sources`, `token`, `citation`, `done`, or `error` in place of what is left."""
        return streamed(events(engine, body))

    return router


async def events(engine: Engine, body: AskBody) -> AsyncIterator[str]:
    """The events of one answer."""
    try:
        asked, hits = await engine.passages(body.question, body.turns(), body.options())
        titles = await asyncio.to_thread(engine.titles, [hit.chunk.document_id for hit in hits])
        shown = [titled_hit(hit, title=titles[hit.chunk.document_id]) for hit in hits]
        yield event("sources", {"question": asked, "hits": shown})
        async with aclosing(engine.answer(asked, hits)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield event("token", {"text": piece})
                    continue
                for citation in piece.citations:
                    title = titles.get(citation.document_id, citation.document_id)
                    yield event("citation", citation_json(citation, title=title))
                done = {"text": piece.text, "answered": piece.answered, "support": piece.support}
                yield event("done", {"id": secrets.token_hex(8), **done})
    except Exception as error:  # noqa: BLE001 - the status has been sent; what is left is an event
        _, message, remedy = told(error)
        yield event("error", {"message": message, "remedy": remedy})
