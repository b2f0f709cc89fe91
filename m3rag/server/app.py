"""The application: all routes over one knowledge base, inside the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response

from m3rag import __version__
from m3rag.knowledge_base import KnowledgeBase
from m3rag.server import errors, routes_ask, routes_documents, routes_openai, routes_rerank, routes_search
from m3rag.server.engine import Engine
from m3rag.server.guard import Guard, Policy
from m3rag.server.mcp import add_mcp
from m3rag.server.metrics import CONTENT_TYPE, Measured, Metrics
from m3rag.server.page import add_page
from m3rag.server.rates import RateLimit
from m3rag.server.schemas import ErrorBody
from m3rag.settings import ServeSettings


def create_app(knowledge_base: KnowledgeBase, settings: ServeSettings | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        knowledge_base: What it serves; closed when the application ends.
        settings: By default those of the knowledge base (`settings.serve`).

    Returns:
        The application; its `state.engine` is what the routes stand on.

    Example:
        >>> from m3rag import KnowledgeBase
        >>> app = create_app(KnowledgeBase("my-index"))  # doctest: +SKIP
    """
    settings = settings or knowledge_base.settings.serve
    engine = Engine(knowledge_base, settings)
    metrics = Metrics(engine.sizes)
    engine.count = metrics.encoded

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.jobs.start)
        try:
            async with app.state.mcp():
                yield
        finally:
            await asyncio.to_thread(engine.close)

    described: dict[int | str, dict[str, Any]] = {
        422: {"model": ErrorBody, "description": "The request is not as described here"},
        "default": {"model": ErrorBody, "description": "An error"},
    }
    app = FastAPI(
        title="m3rag", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, responses=described
    )
    app.state.engine = engine
    app.state.metrics = metrics
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    policy = Policy(settings.host, key, settings.allowed_hosts, int(settings.max_upload_mb * 1e6))
    errors.install(app)
    for part in (routes_search, routes_ask, routes_documents, routes_openai, routes_rerank):
        app.include_router(part.routes(engine))
    _add_health(app, metrics)
    app.state.mcp = add_mcp(app, engine)
    add_page(app)
    app.add_middleware(Guard, policy=policy, rates=RateLimit(settings.rate_limit))
    app.add_middleware(Measured, metrics=metrics)
    return app


def _add_health(app: FastAPI, metrics: Metrics) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Whether the server runs; nothing else is looked at."""
        return {"status": "ok"}

    @app.get("/metrics", tags=["server"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE)
