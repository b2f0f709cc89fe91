"""On a narrow terminal nothing that matters is cut: places keep their page, checks their columns."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from m3rag.cli.demo import _typed
from m3rag.cli.doctor import print_check
from m3rag.cli.search import print_table
from m3rag.doctor import Check
from m3rag.types import Chunk, Hit, LegScores


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return Terminal()


def test_the_page_of_a_hit_is_never_cut(terminal: Terminal) -> None:
    name = "a-report-with-a-name-that-is-very-long-indeed.pdf"
    chunk = Chunk(id="1", document_id=name, text="Ducks swim.", start=0, end=11, page=1234)
    hit = Hit(chunk=chunk, score=0.5, scores=LegScores(dense=0.5, lexical=0.25, colbert=0.125))
    with redirect_stdout(terminal):
        print_table([hit], [[]])
    lines = terminal.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    first = "document:page"
    column = next(line.index(first) for line in lines if first in line)
    told = "".join(line[column:].split(" ")[0] for line in lines[2:])
    assert told == f"{name}:1234"
    for score in ("0.500", "0.250", "0.125"):
        assert score in lines[2]


def test_long_messages_stay_beside_their_check(terminal: Terminal) -> None:
    packages = ", ".join(f"package-{n} 1.{n}" for n in range(12))
    remedy = f"pip install {packages}"
    with redirect_stdout(terminal):
        print_check(Check("extra a-name-that-is-long", "ok", packages, remedy))
    first, *rest, last = terminal.getvalue().splitlines()
    assert first == "ok       extra a-name-that-is-long"
    assert all(len(line) <= 80 and line.startswith(" " * 28) for line in rest)
    assert " ".join(" ".join(rest).split()) == packages
    assert last.strip() == f"-> {remedy}"  # in one piece, to be copied


def test_without_a_terminal_lines_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_check(Check("model", "ok", "word " * 60 + "end"))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_demo_names_a_command_that_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "my env" / "m3rag"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert shlex.split(_typed()) == [str(Path("my env", "m3rag"))]
    monkeypatch.setenv("PATH", str(program.parent))
    assert shutil.which("m3rag") is not None
    assert _typed() == "m3rag"
