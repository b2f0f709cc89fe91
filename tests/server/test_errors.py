"""Every error has one shape, says what to do, and neither repeats what was sent nor tells secrets."""

from __future__ import annotations

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.server.errors import about


async def test_an_error_that_nobody_meant_has_a_number_and_no_traceback(
    client: httpx.AsyncClient, kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("with a password in it")

    monkeypatch.setattr(kb, "documents", broken)
    response = await client.get("/api/documents")
    error = response.json()["error"]
    assert response.status_code == 500
    assert "password" not in response.text
    assert "Traceback" not in response.text
    number = error["message"].split("error ")[1].rstrip(")")
    assert number in caplog.text
    assert "with a password in it" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "json", "status"),
    [
        ("GET", "/api/nothing", None, 404),
        ("PUT", "/api/search", None, 405),
        ("POST", "/api/search", {"query": "ducks", "colour": "red"}, 422),
        ("POST", "/api/search", {"query": "  "}, 422),
        ("POST", "/api/search", {"query": "ducks", "k": 0}, 422),
        ("POST", "/api/search", {"query": "ducks", "k": 10_000}, 422),
        ("POST", "/api/search", {"query": "ducks", "mode": "smell"}, 422),
        ("POST", "/api/search", {"query": "ducks", "weights": "heavy"}, 400),
        ("POST", "/api/search", {"query": "ducks", "filter": {"year": {"$near": 1}}}, 400),
        ("POST", "/api/feedback", {"id": "1", "question": "q", "answer": "a", "rating": "sideways"}, 422),
        ("GET", "/api/source?document_id=none", None, 404),
        ("DELETE", "/api/documents?document_id=none", None, 404),
        ("POST", "/api/highlights", {"query": "q", "chunk_id": "none"}, 404),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_shape(
    client: httpx.AsyncClient, method: str, path: str, json: object, status: int
) -> None:
    response = await client.request(method, path, json=json)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "remedy"}
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [("PUT", "/api/documents", "DELETE, GET, POST"), ("GET", "/api/search", "POST"), ("PUT", "/health", "GET, HEAD")],
)
async def test_a_method_that_is_not_taken_is_told_which_are(
    client: httpx.AsyncClient, method: str, path: str, methods: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == methods


async def test_files_take_no_other_method(client: httpx.AsyncClient) -> None:
    response = await client.put("/static/index.html")
    assert response.status_code == 405
    assert "POST" not in response.headers.get("allow", "")


@pytest.mark.parametrize("body", [b'{"query": "\\ud800"}', b"{", b"[]", b'{"query": ' + b"9" * 5_000 + b"}", b"\xff"])
async def test_a_body_that_is_no_json_of_ours_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/api/search", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


async def test_what_is_no_json_is_no_fault_of_a_field(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", content=b'{"input": ]', headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (error["message"], error["param"]) == ("the request: JSON decode error", None)


async def test_a_refusal_is_short_however_much_is_wrong(client: httpx.AsyncClient) -> None:
    deep: object = 1
    for _ in range(300):
        deep = {"$not": deep}
    many = {"documents": [1] * 1000, "query": "x"}
    for path, body in (
        ("/api/search", {"query": "x", "filter": deep}),
        ("/rerank", many),
        ("/api/ask", {"x" * 9000: 1}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 422
        assert len(response.content) < 2_000


async def test_what_was_sent_is_not_repeated(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/search", json={"query": "ducks", "mode": "sk-12345"})
    assert response.status_code == 422
    assert "sk-12345" not in response.text


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("is empty (0 bytes)", "a.txt is empty (0 bytes)"),
        ("its name is not Unicode", "a.txt: its name is not Unicode"),
        ("no such thing as a.txt", "no such thing as a.txt"),
    ],
)
def test_messages_have_a_subject(message: str, sentence: str) -> None:
    assert about("a.txt", message) == sentence
