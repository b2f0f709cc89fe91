"""What comes before a request: connections on which nothing is asked, or too much."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from m3rag.server import connections, create_app, guard
from m3rag.settings import ServeSettings

from .serving import WAIT_S, Served, filled, serving
from .test_ask import QUESTION, Endless


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(create_app(filled(), ServeSettings(data=tmp_path_factory.mktemp("data")))) as one:
        yield one


def connected(server: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=WAIT_S)


def replied(server: Served, request: bytes) -> bytes:
    with connected(server) as sock:
        sock.sendall(request)
        return sock.recv(1 << 16)


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc", HEALTH + b"GET /hea"])
def test_who_asks_nothing_is_not_waited_for(server: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    with connected(server) as sock:
        sock.sendall(sent)
        got = b""
        while piece := sock.recv(1 << 16):
            got += piece
    assert got.startswith(b"HTTP/1.1 200 OK") == sent.startswith(HEALTH)


def test_an_answer_may_take_longer_than_a_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    monkeypatch.setattr(guard, "SILENCE_S", 0.1)
    app = create_app(filled(llm=Endless()), ServeSettings(data=tmp_path))
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
        began = time.monotonic()
        with client.stream("POST", "/api/ask", json=QUESTION) as response:
            for line in response.iter_lines():
                assert not line.startswith("event: error")
                if time.monotonic() - began > 0.5:
                    break
            else:
                raise AssertionError("the stream has ended")


def test_heads_have_an_end(server: Served) -> None:
    many = b"".join(b"x-%d: a\r\n" % n for n in range(200_000))
    for headers in (many, b"x: " + b"a" * 2_000_000 + b"\r\n"):
        with connected(server) as sock:
            try:
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
                reply = sock.recv(100)
            except (ConnectionResetError, BrokenPipeError):  # it did not even listen to the end
                reply = b"HTTP/1.1 400 "
        assert reply.startswith(b"HTTP/1.1 400 ")
    assert replied(server, HEALTH).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_nobody_gets_a_web_socket(server: Served, host: str) -> None:
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMw==\r\n"
    )
    reply = replied(server, f"GET /api/search HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n".encode())
    assert reply.split(b" ")[1] == (b"405" if host == "localhost" else b"400")


def test_many_that_ask_nothing_stop_nobody(server: Served) -> None:
    idle = [connected(server) for _ in range(200)]
    try:
        assert replied(server, HEALTH).startswith(b"HTTP/1.1 200 ")
    finally:
        for sock in idle:
            sock.close()


def test_malformed_uploads_do_not_fill_the_log(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    head = {"content-type": "multipart/form-data; boundary=b"}
    assert httpx.post(f"{server.url}/api/documents", content=b"no boundary", headers=head).status_code == 400
    assert caplog.text == ""


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Content-Length: -3", "Content-Length: 3\r\nContent-Length: 4"],
)
def test_no_request_hides_in_another(server: Served, framing: str) -> None:
    reply = replied(server, f"POST /api/search HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n0\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("trusted", "second"),
    [
        ((), 429),
        (("10.0.0.0/8",), 429),
        (("127.0.0.1",), 200),
    ],
    ids=["nobody", "another", "the proxy"],
)
def test_behind_a_proxy_that_is_trusted_each_client_has_its_own_rate(
    trusted: tuple[str, ...], second: int, tmp_path: Path
) -> None:
    settings = ServeSettings(data=tmp_path, rate_limit=1)
    with (
        serving(create_app(filled(), settings), trusted_proxies=trusted) as server,
        httpx.Client(base_url=server.url, timeout=WAIT_S) as client,
    ):

        def status(forwarded: str) -> int:
            return client.get("/api/status", headers={"x-forwarded-for": forwarded}).status_code

        assert status("192.0.2.1") == 200
        assert status("203.0.113.7, 192.0.2.1") == 429  # what the client itself says of others is not believed
        assert status("192.0.2.2") == second
