"""`m3rag demo` answers each of its questions from a document in another language."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3rag.cli.app import app


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_each_question_is_answered_with_a_citation(printed: str) -> None:
    answers = printed.split("\n> ")[1:]
    assert len(answers) == 3
    cited = [next(line for line in a.splitlines() if line.startswith("[1] ")).split(",")[0] for a in answers]
    assert cited == ["[1] debian-faq.de.pdf", "[1] duck.en.html", "[1] human-rights.uk.html"]
    assert "p. 10" in answers[0]
    assert "1993 von Ian Murdock" in answers[0]
