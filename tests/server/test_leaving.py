"""Clients that do not wait for their answer: the work for it ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from m3rag.answering import OpenAIChat
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.output import M3Output
from m3rag.server import create_app
from m3rag.settings import ServeSettings
from m3rag.testing import HashEncoder

from .serving import WAIT_S, Served, filled, serving

QUESTION = "What do ducks eat?"
TURNS = [{"role": "user", "content": "Do ducks swim?"}, {"role": "assistant", "content": "Yes."}]


class Writing(ThreadingHTTPServer):
    """A language model's server that writes until its connection is dropped."""

    daemon_threads = True

    def __init__(self) -> None:
        self.began, self.dropped = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Writing)


class _Writing(BaseHTTPRequestHandler):
    server: Writing

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        choice = {"index": 0, "delta": {"content": "ducks "}, "finish_reason": None}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "any", "choices": [choice]}
        try:
            while True:
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.server.began.set()
                time.sleep(0.005)
        except OSError:
            self.server.dropped.set()


class Slow(AsyncEncoding, HashEncoder):
    """An encoder that waits until it may go on, and counts what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go_on, self.texts = threading.Event(), threading.Event(), 0

    def encode_documents(self, texts: Sequence[str], **options: Any) -> M3Output:
        self.texts += len(texts)
        self.began.set()
        assert self.go_on.wait(WAIT_S)
        return super().encode_documents(texts)

    def encode_queries(self, texts: Sequence[str], **options: Any) -> M3Output:
        return self.encode_documents(texts)


@dataclass
class Asked:
    """A server, and those who ask it and go."""

    served: Served

    def leave(self, path: str, body: dict[str, Any], began: threading.Event) -> None:
        """Send a request, and go away when the work for it has begun."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", httpx.URL(self.served.url).port), timeout=WAIT_S) as client:
            client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            assert began.wait(WAIT_S)

    def left(self, path: str) -> bool:
        """Whether the server has noticed."""
        line = f'm3rag_requests_total{{method="POST",route="{path}",status="499"}} 1.0'
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if line in httpx.get(f"{self.served.url}/metrics").text:
                return True
            time.sleep(0.02)
        return False


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Writing]]:
    model = Writing()
    thread = threading.Thread(target=model.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    settings = ServeSettings(data=tmp_path_factory.mktemp("data"))
    with (
        OpenAIChat("any", base_url=f"http://127.0.0.1:{model.server_address[1]}/v1") as llm,
        serving(create_app(filled(llm=llm), settings)) as served,
    ):
        yield Asked(served), model
    model.shutdown()
    thread.join()
    model.server_close()


HISTORY = [{"question": "Do ducks swim?", "answer": "Yes."}]
LAST = {"role": "user", "content": QUESTION}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [LAST]}),
        ("/v1/chat/completions", {"messages": [*TURNS, LAST]}),  # whose question is being rewritten
        ("/v1/chat/completions", {"messages": [*TURNS, LAST], "stream": True}),
        ("/api/ask", {"question": QUESTION}),
        ("/api/ask", {"question": QUESTION, "history": HISTORY}),
    ],
)
def test_the_language_model_is_stopped(writing: tuple[Asked, Writing], path: str, body: dict[str, Any]) -> None:
    asked, model = writing
    model.began.clear()
    model.dropped.clear()
    asked.leave(path, body, model.began)
    assert model.dropped.wait(WAIT_S)
    assert httpx.get(f"{asked.served.url}/health").status_code == 200


TEXTS = [f"Duck {n} swims." for n in range(1000)]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/embeddings", {"model": "", "input": TEXTS}), ("/rerank", {"query": QUESTION, "documents": TEXTS})],
)
def test_no_further_texts_are_encoded(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    encoder = Slow()
    encoder.go_on.set()
    kb = filled(encoder=encoder)
    encoder.began.clear()
    encoder.go_on.clear()
    encoder.texts = 0
    with serving(create_app(kb, ServeSettings(data=tmp_path))) as served:
        asked = Asked(served)
        asked.leave(path, body, encoder.began)
        assert asked.left(path)
        begun = encoder.texts
        assert begun < len(TEXTS)
        encoder.go_on.set()
        assert httpx.post(f"{served.url}/v1/embeddings", json={"model": "", "input": "last"}).status_code == 200
        assert encoder.texts == begun + 1


def test_who_leaves_within_a_request_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(create_app(filled(), ServeSettings(data=tmp_path))) as served:
        with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port), timeout=WAIT_S) as client:
            client.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{")
        assert Asked(served).left("/api/search")
    assert caplog.records == []
