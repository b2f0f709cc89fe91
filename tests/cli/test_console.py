"""What every command does with errors, control characters and variables that are no settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.cli.console import EXIT_CODES, command, in_line, place, print_json, printable, typed
from m3rag.cli.options import Debug
from m3rag.errors import (
    ConfigurationError,
    IndexLockedError,
    IndexMismatchError,
    IndexMissingError,
    InputError,
    LLMError,
    M3RagError,
    ModelError,
    ReadError,
)

RAISED: list[BaseException] = []

failing = typer.Typer(pretty_exceptions_enable=False)


@failing.command()
@command
def fail(debug: Debug = False) -> None:
    raise RAISED[-1]


def run(error: BaseException, *arguments: str) -> Result:
    RAISED.append(error)
    return CliRunner().invoke(failing, list(arguments))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (ConfigurationError("x"), 3),
        (IndexMissingError("x"), 4),
        (IndexLockedError("x"), 4),
        (IndexMismatchError("x"), 4),
        (ModelError("x"), 5),
        (LLMError("x"), 5),
        (ImportError('pip install "m3rag[x]"'), 5),
        (ReadError("x"), 1),
        (M3RagError("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
    ],
)
def test_every_error_has_its_exit_code_and_no_traceback(error: BaseException, code: int) -> None:
    result = run(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_interrupted_while_the_commands_load() -> None:
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'm3rag.cli.ingest':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from m3rag.cli import main\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_help_that_cannot_be_written_is_a_line_and_with_debug_a_traceback() -> None:
    def told(*arguments: str) -> tuple[int, list[str]]:
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "m3rag", "search", *arguments, "--help"]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        return result.returncode, result.stderr.splitlines()

    code, (line,) = told()
    assert (code, line.startswith("error: [Errno 28]")) == (1, True)
    assert told("--debug")[1][0].startswith("Traceback")


def test_every_error_of_ours_has_an_exit_code() -> None:
    assert {kind for kind, _ in EXIT_CODES} >= {InputError, ConfigurationError, ModelError, LLMError, M3RagError}
    assert {code for _, code in EXIT_CODES} == {1, 2, 3, 4, 5}


def test_a_bug_is_one_line_and_with_debug_itself() -> None:
    result = run(ZeroDivisionError("a bug\nof two lines"))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ZeroDivisionError: a bug of two lines; this is a bug in m3rag: run it with --debug")
    assert isinstance(run(ZeroDivisionError("a bug"), "--debug").exception, ZeroDivisionError)
    assert isinstance(run(InputError("x"), "--debug").exception, InputError)


def test_a_terminal_obeys_nothing_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\x9b31m\r\tb\nc\udcff"
    assert printable(hostile) == "a\\u001b]0;title\\u0007\\u001b[2J\\u009b31m\\u000d\tb\nc\\udcff"
    print_json("test", {"text": hostile})
    assert json.loads(capsys.readouterr().out) == {"schema": "m3rag.test/1", "text": hostile}


def test_signs_that_the_encoding_of_stdout_lacks_are_escaped() -> None:
    code = (
        "from m3rag.cli.console import command, print_json, say\n"
        "@command\n"
        "def show():\n"
        "    say('\\xe9 \\u732b')\n"
        "    print_json('test', {'text': '\\xe9 \\u732b \\U0001f408'})\n"
        "show()"
    )
    narrow = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=narrow, check=True)
    line, value = result.stdout.decode("latin-1").splitlines()
    assert line == "\xe9 \\u732b"
    assert json.loads(value)["text"] == "\xe9 \u732b \U0001f408"


def test_unknown_variables_are_told_once_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_TOPK", "3")
    result = CliRunner().invoke(app, ["list", "-i", "nowhere"])
    assert result.exit_code == 4
    first, second = result.stderr.splitlines()
    assert first == "note: the environment variable M3RAG_TOPK is no setting of m3rag: did you mean M3RAG_TOP_K?"
    assert second.startswith("error: ")


def test_a_line_of_env_that_says_nothing_is_told_once_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('M3RAG_TOP_K=3\n===\nno name = "here\n', encoding="utf-8")
    command = [sys.executable, "-m", "m3rag", "config", "show"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"^top_k +3$", result.stdout, re.MULTILINE)
    passed = "is no NAME=VALUE, and is passed over"
    assert result.stderr.splitlines() == [f"note: {file}: what begins in line {line} {passed}" for line in (2, 3)]


def test_a_name_stays_in_its_line() -> None:
    name = "a.txt\nremoved   b.txt\t1 chunk\u2028\x1b[2J"
    assert in_line(name) == "a.txt\\u000aremoved   b.txt\\u00091 chunk\\u2028\\u001b[2J"
    assert place(name, 3) == f"{in_line(name)}:3"
    assert place("Ενότητα 1.pdf", None) == "Ενότητα 1.pdf"


def test_want_of_memory_is_no_bug() -> None:
    result = run(MemoryError("Cannot allocate memory (os error 12)"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is not enough memory (Cannot allocate memory")
    assert "bug" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="closes streams as a POSIX shell does")
def test_streams_that_were_closed_are_empty_and_their_numbers_are_taken() -> None:
    code = (
        "import os, sys\n"
        "from m3rag import cli\n"
        "cli._open_closed_streams()\n"
        "print('out'); print('err', file=sys.stderr)\n"
        "assert sys.stdin.read() == ''\n"
        "assert all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in range(3))"
    )
    shell = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", shell, sys.executable, code], check=False).returncode == 0


def test_bytes_that_are_no_text_are_no_question() -> None:
    assert typed("Что едят утки?") == "Что едят утки?"
    with pytest.raises(InputError, match=r"'\\udce9' is no text in ascii.*PYTHONUTF8=1"):
        typed("\udce9", "ascii")
    result = CliRunner().invoke(app, ["search", "\udce9", "-i", "nowhere"])
    assert (result.exit_code, "is no text in" in result.stderr) == (2, True)
    result = CliRunner().invoke(app, ["ask", "\udce9", "-i", "nowhere"])
    assert (result.exit_code, "is no text in" in result.stderr) == (2, True)
