"""OpenAI's protocol: models, embeddings, chat completions over the documents."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from m3rag.answering import Turn
from m3rag.encoder.protocol import Encoder
from m3rag.legs import require_legs
from m3rag.output import M3Output
from m3rag.server.engine import Engine
from m3rag.server.errors import Refused, openai_body_of, told
from m3rag.server.leaving import EndsWithClient
from m3rag.server.schemas import MOST_QUESTION, ChatBody, EmbeddingsBody
from m3rag.server.shapes import citation_json, titled_hit
from m3rag.server.streaming import STREAM, json_line, streamed
from m3rag.types import Answer, Hit

CHAT_MODEL = "m3rag"
MOST_COLBERT = 64
"""Most texts whose token vectors are given at once: they are some hundred times the dense vector."""


def routes(engine: Engine) -> APIRouter:
    """The routes over an engine."""
    router = APIRouter(prefix="/v1", tags=["openai"], route_class=EndsWithClient)

    @router.get("/models/", include_in_schema=False)  # else the address of a model without a name
    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The model of the embeddings, and `m3rag`, which answers from the documents."""
        names = [CHAT_MODEL, (await asyncio.to_thread(engine.status))["model"]]
        return {"object": "list", "data": [_model(name) for name in names]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One of the two models."""
        _require_model(name, (await asyncio.to_thread(engine.status))["model"])
        return _model(name)

    @router.post("/embeddings")
    async def embeddings(body: EmbeddingsBody) -> Response:
        """Embeddings; `m3rag: {"lexical": true, "colbert": true}` adds the other two representations."""
        encoder = await engine.encoder()
        _require_model(body.model, encoder.info.name)
        if body.dimensions not in (None, encoder.info.dense_dim):
            raise Refused(400, f"the model {encoder.info.name} has {encoder.info.dense_dim} dimensions and no other")
        legs = [leg for leg in ("lexical", "colbert") if getattr(body.m3rag, leg)]
        require_legs(encoder.info, legs, what="m3rag", remedy="leave it out")  # type: ignore[arg-type]
        texts = [body.input] if isinstance(body.input, str) else body.input
        if body.m3rag.colbert and len(texts) > MOST_COLBERT:
            raise Refused(400, f"token vectors of more than {MOST_COLBERT} texts at once", "Send fewer texts.")
        output = await engine.encode(texts, query=body.input_type == "query")
        return await asyncio.to_thread(lambda: JSONResponse(_embeddings(encoder, output, body)))

    @router.post("/chat/completions", responses=STREAM)
    async def chat(body: ChatBody) -> Response:
        """An answer from the documents; `m3rag` in the response has the sources."""
        _require_model(body.model, engine.llm_name() or CHAT_MODEL)
        question, history = conversation(body)
        asked, hits = await engine.passages(question, history, body.m3rag.options())
        if body.stream:
            counted = body if body.stream_options is not None and body.stream_options.include_usage else None
            return streamed(_chunks(engine, asked, hits, counted))
        answer: Answer | None = None
        async with aclosing(engine.answer(asked, hits)) as pieces:
            async for piece in pieces:
                answer = piece if isinstance(piece, Answer) else answer
        if answer is None:
            raise RuntimeError("an answerer ended without an Answer")
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        sources = await _sources(engine, asked, hits, answer)
        reply = {
            **_envelope("chat.completion"),
            "choices": [choice],
            "usage": await _usage(engine, body, answer),
            "m3rag": sources,
        }
        return Response(json_line(reply), media_type="application/json")

    return router


def conversation(body: ChatBody) -> tuple[str, list[Turn]]:
    """The last question, and the turns before it; what a system message says is not for us.

    Raises:
        Refused: If the last message is not a question of the user.
    """
    # What an assistant said without text was to its tools.
    said = [m for m in body.messages if m.role == "user" or (m.role == "assistant" and m.content is not None)]
    if not said or said[-1].role != "user" or not said[-1].text.strip():
        raise Refused(400, "the last message must be a question with the role user")
    if len(said[-1].text) > MOST_QUESTION:
        raise Refused(400, f"the question is longer than {MOST_QUESTION:,} characters", "Ask for one thing at a time.")
    turns: list[Turn] = []
    for message, following in pairwise(said):
        if message.role == "user" and following.role == "assistant":
            turns.append(Turn(message.text, following.text))
    return said[-1].text, turns


async def _chunks(engine: Engine, asked: str, hits: list[Hit], counted: ChatBody | None) -> AsyncIterator[str]:
    """The events of an answer; the last has the usage where `counted`, the request, is given."""
    envelope = _envelope("chat.completion.chunk")
    if counted is not None:
        envelope["usage"] = None  # until the last chunk

    def chunk(delta: dict[str, Any], finish: str | None = None, **further: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**envelope, "choices": [choice], **further})

    said = False
    try:
        yield chunk({"role": "assistant", "content": ""})
        async with aclosing(engine.answer(asked, hits)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    said = True
                    yield chunk({"content": piece})
                    continue
                if not said:  # a refusal comes without pieces
                    yield chunk({"content": piece.text})
                yield chunk({}, "stop", m3rag=await _sources(engine, asked, hits, piece))
                if counted is not None:
                    yield _data({**envelope, "choices": [], "usage": await _usage(engine, counted, piece)})
        yield "data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001 - the status has been sent; what is left is an event
        yield _data(openai_body_of(*told(error)))


async def _usage(engine: Engine, body: ChatBody, answer: Answer) -> dict[str, int]:
    """Tokens of the messages that were sent, and of the answer; the passages between them are not the client's."""
    sent = await engine.tokens(*(message.text for message in body.messages))
    (said,) = await engine.tokens(answer.text)  # exact, however long what was sent is
    return {"prompt_tokens": sum(sent), "completion_tokens": said, "total_tokens": sum(sent) + said}


async def _sources(engine: Engine, asked: str, hits: list[Hit], answer: Answer) -> dict[str, Any]:
    titles = await asyncio.to_thread(engine.titles, [hit.chunk.document_id for hit in hits])
    return {
        "question": asked,
        "text": answer.text,
        "answered": answer.answered,
        "support": answer.support,
        "citations": [citation_json(c, title=titles.get(c.document_id, c.document_id)) for c in answer.citations],
        "hits": [titled_hit(hit, title=titles[hit.chunk.document_id]) for hit in hits],
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "m3rag"}


def _data(value: dict[str, Any]) -> str:
    return f"data: {json_line(value)}\n\n"


def _envelope(kind: str) -> dict[str, Any]:
    number = "chatcmpl-" + secrets.token_hex(8)
    return {"id": number, "object": kind, "created": int(time.time()), "model": CHAT_MODEL}


def _require_model(given: str, name: str) -> None:
    if given not in ("", CHAT_MODEL, name):
        known = " and ".join(dict.fromkeys([CHAT_MODEL, name]))
        message = f"there is no model of the name given here, only {known}"
        raise Refused(404, message, "GET /v1/models has their names.", code="model_not_found")


def _embeddings(encoder: Encoder, output: M3Output, body: EmbeddingsBody) -> dict[str, Any]:
    as_text = body.encoding_format == "base64"

    def vector(values: npt.NDArray[np.floating]) -> str | list[float]:
        numbers = np.asarray(values, "<f4")
        return base64.b64encode(numbers.tobytes()).decode() if as_text else numbers.tolist()

    data: list[dict[str, Any]] = []
    for i in range(len(output)):
        item: dict[str, Any] = {"object": "embedding", "index": i, "embedding": vector(output.dense[i])}
        further: dict[str, Any] = {}
        if body.m3rag.lexical:
            row = output[i].lexical.tocsr()
            weights = zip(row.indices.tolist(), row.data.tolist(), strict=True)
            further["lexical"] = {encoder.token(token): float(weight) for token, weight in weights}
        if body.m3rag.colbert:
            further["colbert"] = [vector(one) for one in output.colbert_of(i)]
        data.append({**item, "m3rag": further} if further else item)
    tokens = int(output.offsets[-1])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": encoder.info.name, "data": data, "usage": usage}
