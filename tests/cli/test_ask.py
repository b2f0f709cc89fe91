"""`m3rag ask`: its options, and its stream, with a language model at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.testing.llm_server import LLMServer, Reply


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ask")
    (root / ".git").mkdir()
    papers = root / "papers"
    papers.mkdir()
    for number, text in enumerate(("Ducks swim on ponds.", "Ducks eat grass.", "The zebra has stripes.")):
        (papers / f"{number}.txt").write_text(text)
    result = CliRunner().invoke(app, ["ingest", str(papers), "-i", str(root / "i")])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | Reply]]:
    """What the language model replies, the last for all further questions."""
    script: list[str | Reply] = []
    with LLMServer(lambda _request: script[0]) as server:
        monkeypatch.setenv("M3RAG_LLM__MODEL", "served")
        monkeypatch.setenv("M3RAG_LLM__BASE_URL", server.base_url)
        yield script


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ask", "What do ducks eat?", *arguments, "-i", "i"])


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_stream_of_events(replies: list[str | Reply]) -> None:
    replies.append("Ducks eat grass, it says here [2] and [9].")
    result = run("--stream", "--json", "--top-k", "2")
    assert result.exit_code == 0, result.stderr
    found = events(result.stdout)
    assert {event["schema"] for event in found} == {"m3rag.ask-event/1"}
    kinds = [event["event"] for event in found]
    assert list(dict.fromkeys(kinds)) == ["sources", "token", "citation", "done"]
    assert kinds.count("token") > 2
    assert "".join(event["text"] for event in found if event["event"] == "token") == replies[0]
    assert len(found[0]["sources"]) == 2
    done = found[-1]
    assert done["text"] == "Ducks eat grass, it says here [1] and."
    assert [event["number"] for event in found if event["event"] == "citation"] == [1]
    assert done["citations"][0]["document_id"] == found[0]["sources"][1]["document_id"]


def test_a_pipe_gets_the_checked_answer_with_and_without_stream(replies: list[str | Reply]) -> None:
    replies.append("Ducks eat grass [2].")
    whole, streamed = run(), run("--stream")
    assert whole.stdout == streamed.stdout
    assert whole.stdout.startswith("Ducks eat grass [1].\n")
    assert streamed.stderr == ""


def test_a_stream_that_breaks_is_exit_code_5(replies: list[str | Reply]) -> None:
    replies.append(Reply("Ducks eat grass and much more [1].", break_after=2))
    result = run("--stream", "--json")
    assert result.exit_code == 5
    assert "error: " in result.stderr
    assert [event["event"] for event in events(result.stdout)][-1] == "token"
    assert run().exit_code == 5


def test_an_answer_that_cites_nothing_says_so(replies: list[str | Reply]) -> None:
    replies.append("Ducks eat cake.")
    assert "(no source backs this answer)" in run().stdout


def test_options_of_the_search_choose_the_passages(replies: list[str | Reply]) -> None:
    replies.append("Grass [1].")

    def sources(*arguments: str) -> list[str]:
        result = run("--stream", "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        return [source["document_id"] for source in events(result.stdout)[0]["sources"]]

    assert len(sources()) == 3
    assert sources("--filter", "document_id=2.txt") == ["2.txt"]
    assert len(sources("--top-k", "1", "--reranker", "colbert")) == 1
    assert sources("--min-score", "5") == []
    assert run("--diversity", "2").exit_code == 2
    assert run("--alpha", "0.5").exit_code == 3
    assert run("--reranker", "nonsense").exit_code == 5
