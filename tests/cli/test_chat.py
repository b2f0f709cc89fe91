"""`m3rag chat`: the conversation in process, on an encoder without a model; then as typed and as piped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3rag.answering import OpenAIChat
from m3rag.cli.app import app
from m3rag.cli.chat_session import Session
from m3rag.errors import ConfigurationError, InputError
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMServer
from m3rag.types import Chunk

TEXTS = {"ducks": "Ducks eat grass.", "geese": "Geese eat grass too.", "zebra": "The zebra has stripes."}


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer(["Ducks eat grass [1].", "What do geese eat?", "Grass [2][1]."]) as running:
        yield running


@pytest.fixture
def session(server: LLMServer) -> Iterator[Session]:
    llm = OpenAIChat("any", base_url=server.base_url)
    with llm, KnowledgeBase(":memory:", settings=Settings(), encoder=HashEncoder(), llm=llm) as kb:
        kb.upsert(
            [
                Chunk(id=name, document_id=name, text=text, start=0, end=len(text), metadata={"kind": name})
                for name, text in TEXTS.items()
            ]
        )
        yield Session(kb)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    """What was printed since the conversation began, or since it was last looked at."""
    capsys.readouterr()
    return capsys


def test_a_question_leans_on_those_before_it(
    session: Session, server: LLMServer, printed: pytest.CaptureFixture[str]
) -> None:
    assert session.take("What do ducks eat?")
    assert session.take("And geese?")
    out, err = printed.readouterr()
    assert out.startswith("Ducks eat grass [1].\n\n[1] ducks, characters 0-16\n")
    assert "(searched for: What do geese eat?)" in err
    assert "Ducks eat grass" in server.requests[1].prompt
    assert [question for question, _ in session.asked] == ["What do ducks eat?", "And geese?"]
    assert session.searched == "What do geese eat?"
    session.take("/clear")
    assert session.asked == []


def test_sources_are_numbered_as_the_answer_cites_them(session: Session, printed: pytest.CaptureFixture[str]) -> None:
    session.take("What do ducks eat?")
    printed.readouterr()
    session.take("/sources")
    lines = [line for line in printed.readouterr().out.splitlines() if line.startswith("[")]
    assert lines[0] == "[1] ducks, characters 0-16"
    assert [line.endswith("(not cited)") for line in lines] == [False, *(True for _ in lines[1:])]
    session.take("/why 1")
    why = printed.readouterr().out.splitlines()
    assert [line.split()[0] for line in why[1:]] == ["dense", "lexical", "colbert"]
    assert "ducks" in why[2].casefold()
    assert "eat -> eat" in why[3]
    for wrong in ("/why", "/why 0", "/why 99", "/why x"):
        with pytest.raises(InputError, match="/sources"):
            session.take(wrong)


def test_mode_and_filter_hold_for_the_questions_that_follow(
    session: Session, printed: pytest.CaptureFixture[str]
) -> None:
    session.take("/filter kind=zebra kind=geese")
    session.take("/mode dense")
    session.take("What do ducks eat?")
    hits = session.answer().hits
    assert {hit.chunk.document_id for hit in hits} == {"zebra", "geese"}
    assert all(hit.scores.lexical is None for hit in hits)
    printed.readouterr()
    session.take("/filter clear")
    session.take("/filter")
    session.take("/mode")
    assert printed.readouterr().out == "filter none\nfilter none\nmode dense\n"
    for wrong in ("/filter kind", "/filter 'kind=x"):
        with pytest.raises(InputError, match="KEY=VALUE"):
            session.take(wrong)
    with pytest.raises(ConfigurationError, match="dense\\+lexical"):
        session.take("/mode magic")
    assert (session.mode, session.filters) == ("dense", [])


def test_saved_as_markdown_and_never_over_another_file(session: Session, tmp_path: Path) -> None:
    session.take("What do\nducks eat?")
    file = tmp_path / "a talk.md"
    session.take(f"/save {file}")
    assert file.read_text(encoding="utf-8") == (
        "## What do ducks eat?\n\nDucks eat grass [1].\n\n[1] ducks, characters 0-16\n\n> Ducks eat grass.\n"
    )
    for wrong in (f"/save {file}", "/save", f"/save {tmp_path / 'none' / 'x.md'}"):
        with pytest.raises(InputError):
            session.take(wrong)
    assert file.read_text(encoding="utf-8").startswith("## What do ducks eat?")


def test_lines_that_are_no_question(session: Session, printed: pytest.CaptureFixture[str]) -> None:
    assert session.take("   ")
    assert session.take("/help")
    shown = printed.readouterr().out
    assert all(f"/{name}" in shown for name in ("sources", "why", "mode", "filter", "clear", "save", "quit"))
    assert not session.take("/quit")
    with pytest.raises(InputError, match="did you mean /sources"):
        session.take("/source")
    with pytest.raises(InputError, match="nothing has been asked"):
        session.take("/sources")
    assert session.asked == []


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "ducks.txt").write_text("Ducks eat grass, worms and small fish.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert CliRunner().invoke(app, ["ingest", "papers", "-i", "i"]).exit_code == 0
    return tmp_path / "i"


def test_questions_from_a_pipe(index: Path) -> None:
    piped = CliRunner().invoke(app, ["chat", "-i", "i"], input="What do ducks eat?\n\n/mode dense\nWorms?")
    assert piped.exit_code == 0
    assert piped.stdout.startswith("Ducks eat grass, worms and small fish. [1]\n\n[1] ducks.txt, characters 0-38\n")
    assert "> " not in piped.stdout.replace("    ", "")
    assert piped.stderr == ""
    failed = CliRunner().invoke(app, ["chat", "-i", "i", "--json"], input="/nonsense\nWhat do ducks eat?\n")
    assert failed.exit_code == 1
    assert "no command /nonsense" in failed.stderr
    (answer,) = map(json.loads, failed.stdout.splitlines())
    assert (answer["schema"], answer["question"], answer["answered"]) == ("m3rag.answer/1", "What do ducks eat?", True)


def test_with_json_commands_speak_on_stderr(index: Path) -> None:
    lines = "What do ducks eat?\n/sources\n/why 1\n/mode dense\n/filter\n/help\n/save talk.md\n/clear\n"
    piped = CliRunner().invoke(app, ["chat", "-i", "i", "--json"], input=lines)
    assert piped.exit_code == 0
    (answer,) = map(json.loads, piped.stdout.splitlines())
    assert answer["schema"] == "m3rag.answer/1"
    said = ("[1] ducks.txt, ", "    dense ", "mode dense", "filter none", "/quit", "saved 1 answer", "is forgotten")
    assert [line for line in said if line not in piped.stderr] == []


def test_without_an_index_nothing_is_asked() -> None:
    result = CliRunner().invoke(app, ["chat", "-i", "nowhere"], input="What?\n")
    assert (result.exit_code, result.stdout) == (4, "")


def test_a_line_that_is_no_text_is_refused_and_the_others_are_answered(index: Path) -> None:
    piped = CliRunner().invoke(app, ["chat", "-i", "i"], input=b"\xe9\nWhat do ducks eat?\n")
    assert piped.exit_code == 1
    assert "is no text in utf-8" in piped.stderr
    assert "Ducks eat grass, worms and small fish. [1]" in piped.stdout


def test_saving_under_a_name_that_no_file_can_have(session: Session) -> None:
    with pytest.raises(InputError, match="could not be written"):
        session.take("/save a\0b")
