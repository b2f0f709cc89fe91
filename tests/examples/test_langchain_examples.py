"""The LangChain examples run as they stand, with the embedded model and one index."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest

from m3rag.testing.llm_server import LLMRequest, LLMServer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where the examples find documents and index: the shortest of the sample documents."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "documents").mkdir()
    shutil.copy(EXAMPLES / "documents" / "fastapi-cors.es.md", folder / "documents")
    return ["--documents", str(folder / "documents"), "--index", str(folder / "index")]


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_quickstart_finds_and_explains(
    places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("langchain_quickstart.py", "What is an origin?", *places, monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert "fastapi-cors.es.md" in lines[0]
    assert "shared words: " in lines[0]


def test_the_chat_streams_answers_and_remembers(
    places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

    def script(request: LLMRequest) -> str:
        return (
            "What is an origin made of?"
            if '"conversation"' in request.prompt
            else "Un origen es protocolo, dominio y puerto [1]."
        )

    questions = iter(["What is CORS?", "And an origin?", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(questions))
    with LLMServer(script) as server:
        arguments = [*places, "--base-url", server.base_url, "--model", "any"]
        run("langchain_chat.py", *arguments, monkeypatch=monkeypatch)
        prompts = [request.prompt for request in server.requests]
    shown = capsys.readouterr().out
    assert shown.count("Un origen es protocolo, dominio y puerto [1].") == 2
    assert shown.count("[1] fastapi-cors.es.md: “") == 2
    assert len(prompts) == 3
    assert "What is CORS?" in prompts[1]
    assert "Question: What is an origin made of?" in prompts[2]
