"""Models for tests: a loopback HTTP server that chats as scripted and embeds, in OpenAI's protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from m3rag.testing.encoder import HashEncoder

PIECE = 5  # characters of a streamed piece: short enough to cut words, marks and sentinels


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """A request as it arrived: header names in lower case, the body parsed."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The contents of all messages, one after the other."""
        return "\n".join(message["content"] for message in self.body["messages"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server does with one request.

    Attributes:
        text: What the model says.
        status: Anything but 200 sends an OpenAI error object with `text` as its message.
        delay: Seconds before the first byte.
        pause: Seconds before each streamed piece.
        break_after: Cut the connection after so many pieces.
        finish_reason: None ends the stream as a server does that died politely: without a reason
            and without `[DONE]`.
        body: Sent as it stands in place of what the server would say: a JSON value, or bytes as HTML.
    """

    text: str = ""
    status: int = 200
    delay: float = 0.0
    pause: float = 0.0
    break_after: int | None = None
    finish_reason: str | None = "stop"
    body: object = None


Script: TypeAlias = str | Reply | Sequence[str | Reply] | Callable[[LLMRequest], str | Reply]
Embed: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.floating]]
"""Texts to vectors `(n, d)`."""


class LLMServer:
    """An OpenAI-compatible server on a free loopback port, in a thread.

    ```python
    with LLMServer("Paris [1].") as server, OpenAIChat("any", base_url=server.base_url) as llm:
        assert llm.complete([Message("user", "Capital of France?")]) == "Paris [1]."
        assert "Capital" in server.requests[0].prompt

    with LLMServer() as server, OpenAIEncoder("any", base_url=server.base_url) as encoder:
        assert encoder.encode_queries(["Do ducks swim?"]).dense.shape == (1, 32)
    ```

    Embeddings are refused for an empty text, as OpenAI does, and cut to `dimensions` where a request
    asks for it. The script counts for them too, but for the text of its replies.

    Args:
        script: One reply for all requests; or a sequence, one for each request, the last for all
            further ones; or a function from the request to its reply.
        api_key: Answer 401 to requests without this bearer key; None lets all in.
        embed: Makes the embeddings; the dense vectors of a `HashEncoder` by default.
    """

    def __init__(self, script: Script = "", *, api_key: str | None = None, embed: Embed | None = None) -> None:
        self.requests: list[LLMRequest] = []
        self.api_key = api_key
        self.embed: Embed = embed or (lambda texts: HashEncoder().encode_documents(texts).dense)
        self._script = script
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> LLMServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, seconds: float) -> None:
        """Let time pass, but not beyond the end of the server."""
        self._closing.wait(seconds)

    def reply_to(self, request: LLMRequest) -> Reply:
        """Record a request and find its reply in the script."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return Reply("Incorrect API key provided", status=401)
        found = self._script
        if callable(found):
            found = found(request)
        elif not isinstance(found, (str, Reply)):
            found = found[min(number, len(found) - 1)]
        return Reply(found) if isinstance(found, str) else found

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(_Handler):
            llm = server

        return Handler


class _Handler(BaseHTTPRequestHandler):
    llm: LLMServer
    protocol_version = "HTTP/1.1"  # chunked bodies let a client tell a broken stream from a whole one

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests own the terminal."""

    def do_POST(self) -> None:
        self.close_connection = True
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        request = LLMRequest(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        reply = self.llm.reply_to(request)
        self.llm.wait(reply.delay)
        try:
            if self.path not in {"/v1/chat/completions", "/v1/embeddings"}:
                self._send_json(404, _error(f"no route {self.path}", 404))
            elif reply.status != 200:
                self._send_json(reply.status, _error(reply.text, reply.status))
            elif isinstance(reply.body, bytes):
                self._send(200, reply.body, "text/html")
            elif reply.body is not None:
                self._send_json(200, reply.body)
            elif self.path == "/v1/embeddings":
                self._send_json(*_embeddings(body, self.llm.embed))
            elif body.get("stream"):
                self._send_stream(body["model"], reply)
            else:
                message = {"role": "assistant", "content": reply.text}
                choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
                self._send_json(200, _envelope(body["model"], "chat.completion", choice))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up waiting, which is what some tests are about

    def _send_json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _send_stream(self, model: str, reply: Reply) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        for number, event in enumerate(_events(model, reply)):
            if number == reply.break_after:
                return  # without the closing empty chunk: a broken transfer
            self.llm.wait(reply.pause)
            content = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")


def _events(model: str, reply: Reply) -> Iterator[str]:
    for at in range(0, len(reply.text), PIECE):
        choice = {"index": 0, "delta": {"content": reply.text[at : at + PIECE]}, "finish_reason": None}
        yield json.dumps(_envelope(model, "chat.completion.chunk", choice))
    if reply.finish_reason is not None:
        choice = {"index": 0, "delta": {}, "finish_reason": reply.finish_reason}
        yield json.dumps(_envelope(model, "chat.completion.chunk", choice))
        yield "[DONE]"


def _embeddings(body: Mapping[str, Any], embed: Embed) -> tuple[int, dict[str, Any]]:
    """Status and body of the reply to a request for embeddings."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        return 400, _error("input must be a text, or a list of texts, none of them empty", 400)
    vectors = np.asarray(embed(texts), "<f4")[:, : body.get("dimensions")]
    as_text = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist(),
        }
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return 200, {"object": "list", "model": body["model"], "data": data, "usage": usage}


def _envelope(model: str, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-test", "object": kind, "created": 0, "model": model, "choices": [choice]}


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted", "param": None, "code": status}}
