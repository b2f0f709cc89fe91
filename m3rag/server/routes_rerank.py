"""Documents that a caller brings, ordered by the model's own three scores."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from m3rag.errors import ConfigurationError
from m3rag.retrieval import Mode
from m3rag.scoring import LEG_SCORES, Weights, fuse
from m3rag.server.engine import Engine
from m3rag.server.errors import Refused
from m3rag.server.leaving import EndsWithClient
from m3rag.server.schemas import RerankBody, RerankDocument


def routes(engine: Engine) -> APIRouter:
    """The routes over an engine."""
    router = APIRouter(tags=["rerank"], route_class=EndsWithClient)

    @router.post("/rerank")
    @router.post("/v1/rerank", include_in_schema=False)
    @router.post("/v2/rerank", include_in_schema=False)  # Cohere's ClientV2, and so its LangChain package
    async def rerank(body: RerankBody) -> JSONResponse:
        """Order documents by how well they answer: results with `index` and `relevance_score`.

        With `texts` in place of `documents` the response has the shape of TEI: a list of `index` and `score`.
        """
        texts = _texts(body)
        scores = await _scores(engine, body, texts)
        order = sorted(range(len(texts)), key=lambda i: (-scores[i], i))[: body.top_n]
        if body.texts is not None:
            return JSONResponse([{"index": i, "score": scores[i], **_text(body, "text", texts[i])} for i in order])
        results = [
            {"index": i, "relevance_score": scores[i], **_text(body, "document", {"text": texts[i]})} for i in order
        ]
        return JSONResponse({"model": (await engine.encoder()).info.name, "results": results})

    return router


async def _scores(engine: Engine, body: RerankBody, texts: list[str]) -> list[float]:
    info = (await engine.encoder()).info
    mode = body.mode or (Mode.ALL if len(info.legs) > 1 else Mode.DENSE)
    mode.check(info)
    if mode.needs_bm25:
        raise ConfigurationError("BM25 ranks what is in an index, not texts that are given: choose another mode")
    weights = Weights.parse(body.weights or engine.kb.settings.weights, legs=mode.legs)
    # The same text once: products of whole matrices differ in their last bits from column to column.
    unique = list(dict.fromkeys(texts))
    query, passages = await asyncio.gather(engine.encode([body.query], query=True), engine.encode(unique))

    def fused() -> dict[str, float]:
        scores = {leg: LEG_SCORES[leg](query, passages)[0] for leg in mode.model_legs}
        return dict(zip(unique, np.asarray(fuse(scores, weights)).tolist(), strict=True))

    of = await asyncio.to_thread(fused)
    return [of[text] for text in texts]


def _texts(body: RerankBody) -> list[str]:
    if (body.documents is None) == (body.texts is None):
        raise Refused(422, "give documents (or, as TEI names them, texts), and not both")
    given = body.documents if body.documents is not None else body.texts or []
    return [one.text if isinstance(one, RerankDocument) else one for one in given]


def _text(body: RerankBody, name: str, value: Any) -> dict[str, Any]:
    return {name: value} if body.return_documents or body.return_text else {}
