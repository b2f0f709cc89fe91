"""Who is let in: each rule, and that what every response says is there."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.server import create_app, guard
from m3rag.server.guard import JSON_BYTES
from m3rag.settings import ServeSettings

from .serving import client_of

KEY = "s3cret-key"
CLOSED = ["/api/status", "/api/documents", "/v1/models", "/metrics", "/openapi.json", "/nowhere"]
OPEN = ["/", "/health"]


@pytest.fixture
async def locked(kb: KnowledgeBase) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(kb, ServeSettings.model_validate({"api_key": KEY}))) as one:
        yield one


@pytest.mark.parametrize("path", CLOSED)
async def test_nothing_is_told_without_the_key(locked: httpx.AsyncClient, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}, {"authorization": f"Basic {KEY}"}):
        response = await locked.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}])
async def test_the_key_opens_by_either_header(locked: httpx.AsyncClient, headers: dict[str, str]) -> None:
    response = await locked.get("/api/status", headers=headers)
    assert response.status_code == 200
    assert response.json()["auth"] is True
    assert KEY not in response.text


@pytest.mark.parametrize("path", OPEN)
async def test_the_page_and_the_health_check_need_no_key(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200
    assert (await locked.head(path)).status_code == 200


async def test_a_key_is_compared_in_constant_time_whatever_is_sent(
    locked: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    response = await locked.get("/api/status", headers={"x-api-key": "schlüssel".encode("latin-1")})
    assert response.status_code == 401
    assert compared == [("schlüssel".encode("latin-1"), KEY.encode())]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9", "LOCALHOST"])
async def test_this_machines_own_names_are_known(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/api/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "192.168.0.1", "", "localhost:80@evil.example"],
)
@pytest.mark.parametrize("path", ["/", "/health", "/api/status"])
async def test_a_foreign_name_is_refused_even_for_the_page(client: httpx.AsyncClient, host: str, path: str) -> None:
    response = await client.get(path, headers={"host": host})
    assert response.status_code == 400
    assert "allowed_hosts" in response.json()["error"]["remedy"]


async def test_an_open_address_takes_addresses_and_the_names_allowed(kb: KnowledgeBase) -> None:
    settings = ServeSettings.model_validate({"host": "0.0.0.0", "api_key": KEY, "allowed_hosts": ("Docs.example",)})
    async with client_of(create_app(kb, settings)) as client:
        for host, status in [("192.168.0.1:80", 200), ("docs.example", 200), ("evil.example", 400)]:
            assert (await client.get("/health", headers={"host": host})).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "file://localhost:8000"])
async def test_a_page_of_another_origin_is_refused(client: httpx.AsyncClient, origin: str) -> None:
    for request in (
        client.get("/api/status", headers={"origin": origin}),
        client.post("/api/search", json={"query": "ducks"}, headers={"origin": origin}),
        client.delete("/api/documents", params={"document_id": "ducks.txt"}, headers={"origin": origin}),
        client.post("/v1/embeddings", json={"input": "x"}, headers={"origin": origin}),
        client.post("/mcp", json={}, headers={"origin": origin}),
    ):
        assert (await request).status_code == 403
    assert len((await client.get("/api/documents")).json()["documents"]) == 2


async def test_the_own_page_may_ask(client: httpx.AsyncClient) -> None:
    headers = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert (await client.post("/api/search", json={"query": "ducks"}, headers=headers)).status_code == 200


async def test_a_picture_in_a_page_of_another_site_is_not_given_but_a_link_to_the_page_works(
    client: httpx.AsyncClient,
) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    assert (await client.get("/api/page/image", headers={**foreign, "sec-fetch-mode": "no-cors"})).status_code == 403
    assert (await client.get("/api/status", headers={**foreign, "sec-fetch-mode": "navigate"})).status_code == 403
    assert (await client.get("/", headers={**foreign, "sec-fetch-mode": "navigate"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/api/status", "/nowhere", "/static/nothing.js", "/openapi.json"])
async def test_every_response_has_the_headers(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("path", "expected"), [("/static/js/main.js", "no-cache"), ("/", "no-store"), ("/api/status", "no-store")]
)
async def test_a_browser_asks_for_what_may_be_another_versions(
    client: httpx.AsyncClient, path: str, expected: str
) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["cache-control"] == expected


async def test_a_refusal_has_the_headers_too(locked: httpx.AsyncClient) -> None:
    assert "content-security-policy" in (await locked.get("/api/status")).headers


async def test_a_client_that_asks_too_often_has_to_wait(kb: KnowledgeBase) -> None:
    async with client_of(create_app(kb, ServeSettings(rate_limit=5))) as client:
        statuses = [(await client.get("/api/jobs/x")).status_code for _ in range(6)]
        assert statuses == [404] * 5 + [429]
        refused = await client.get("/api/status")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/health")).status_code == 200
        other = httpx.ASGITransport(client._transport.app, client=("10.0.0.2", 1))  # type: ignore[attr-defined]
        async with httpx.AsyncClient(transport=other, base_url="http://localhost:8000") as second:
            assert (await second.get("/api/status")).status_code == 200


async def test_who_waits_as_long_as_told_is_let_in(kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.RateLimit, "wait", lambda *_: 1.2)
    async with client_of(create_app(kb, ServeSettings())) as client:
        refused = await client.get("/api/status")
    assert refused.headers["retry-after"] == "2"
    assert "Wait 2 s" in refused.json()["error"]["remedy"]


async def test_pages_of_other_sites_use_up_nothing(kb: KnowledgeBase) -> None:
    async with client_of(create_app(kb, ServeSettings(rate_limit=2))) as client:
        for foreign in ({"origin": "http://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "same-site"}):
            refused = [(await client.get("/api/status", headers=foreign)).status_code for _ in range(5)]
            assert set(refused) <= {400, 403}
        assert (await client.get("/api/status")).status_code == 200


async def test_guessing_keys_is_limited(kb: KnowledgeBase) -> None:
    settings = ServeSettings.model_validate({"api_key": KEY, "rate_limit": 3})
    async with client_of(create_app(kb, settings)) as client:
        statuses = [(await client.get("/api/status", headers={"x-api-key": str(n)})).status_code for n in range(4)]
        assert statuses == [401, 401, 401, 429]


async def test_a_body_is_bounded_whether_or_not_its_length_is_told(client: httpx.AsyncClient) -> None:
    large = b'{"query": "' + b"x" * JSON_BYTES + b'"}'
    headers = {"content-type": "application/json"}
    told = await client.post("/api/search", content=large, headers=headers)
    assert told.status_code == 413

    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, 4 * len(large), 1 << 16):
            sent += 1 << 16
            yield large[start % len(large) :][: 1 << 16]

    streamed = await client.post("/api/search", content=pieces(), headers=headers)
    assert streamed.status_code == 413
    assert streamed.json() == told.json()
    assert "serve.max_upload_mb" in told.json()["error"]["remedy"]


async def test_a_body_that_does_not_come_is_not_waited_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "SILENCE_S", 0.05)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"query": '
        await asyncio.Event().wait()

    headers = {"content-type": "application/json"}
    response = await client.post("/api/search", content=pieces(), headers=headers)
    assert response.status_code == 408
    assert "nothing of the request came" in response.json()["error"]["message"]


async def test_an_upload_beyond_the_limit_is_refused_and_leaves_nothing(kb: KnowledgeBase) -> None:
    app = create_app(kb, ServeSettings(max_upload_mb=0.01))
    async with client_of(app) as client:
        for size in (10_001, 200_000):
            response = await client.post("/api/documents", files=[("files", ("big.txt", b"x" * size))])
            assert response.status_code == 413
        assert (await client.get("/api/documents")).json()["jobs"] == []
        assert not app.state.engine.uploads.files.exists()


async def test_no_key_is_written_down(
    locked: httpx.AsyncClient, kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no reason")

    caplog.set_level("DEBUG")
    monkeypatch.setattr(kb, "documents", broken)
    headers = {"authorization": f"Bearer {KEY}"}
    assert (await locked.get("/api/documents", headers=headers)).status_code == 500
    monkeypatch.undo()
    assert KEY not in (await locked.get("/metrics", headers=headers)).text
    assert "no reason" in caplog.text
    assert KEY not in caplog.text


def test_no_key_is_shown(kb: KnowledgeBase) -> None:
    settings = ServeSettings.model_validate({"api_key": KEY})
    app = create_app(kb, settings)
    assert KEY not in repr(settings)
    assert KEY not in "".join(repr(middleware) for middleware in app.user_middleware)
