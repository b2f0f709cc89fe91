from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from m3rag.doctor.check import Check
from m3rag.doctor.llm import check_llm
from m3rag.settings import LLMSettings

LIST = b'{"object": "list", "data": [{"id": "llama3.2:latest", "object": "model", "created": 0, "owned_by": "x"}]}'


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """A server that answers every request for its models alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Tests own the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
        http.shutdown()
        thread.join()


def look(model: str | None, base_url: str | None = None, key: str | None = None) -> Check:
    given = {"model": model, "base_url": base_url, "api_key": key}
    (check,) = check_llm(LLMSettings.model_validate(given))
    return check


def test_none_is_no_problem() -> None:
    assert look(None).severity == "info"


def test_a_server_that_has_the_model() -> None:
    with server(200, LIST) as url:
        assert look("llama3.2", url).severity == "ok"
        assert look("llama3.2:latest", url).severity == "ok"
        wrong = look("lama3.2", url)
    assert wrong.severity == "error"
    assert wrong.remedy == "export M3RAG_LLM__MODEL=llama3.2:latest"


def test_a_server_that_lists_nothing_is_reached_all_the_same() -> None:
    with server(404, b"{}") as url:
        assert look("any", url).severity == "ok"


def test_a_server_that_refuses_is_told_without_the_key() -> None:
    with server(401, b'{"error": {"message": "the key hush-hush is wrong"}}') as url:
        check = look("any", url, "hush-hush")
    assert check.severity == "error"
    assert "401" in check.message
    assert "hush" not in check.message + str(check.remedy)


def test_no_server_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    check = look("any", "http://127.0.0.1:9/v1")
    assert (check.severity, "start the server" in (check.remedy or "")) == ("error", True)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert "OPENAI_API_KEY" in (look("any").remedy or "")
