"""Help is there at once, for every command; nothing heavy is imported for it, nor for completing a word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from m3rag.cli.app import app

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "transformers",
    "pydantic_settings",
    "rich.progress",
    "qdrant_edge",
    "fastapi",
    "openai",
)

HELP_OF_ALL = f"""
import json, sys
import typer
from typer.testing import CliRunner
from m3rag.cli.app import app

group = typer.main.get_command(app)
shown = {{}}
def walk(command, path):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, (path, result.output)
    shown[" ".join(path)] = result.output
    for name, child in getattr(command, "commands", {{}}).items():
        walk(child, [*path, name])
walk(group, [])
print(json.dumps({{"shown": shown, "loaded": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=True, env={**os.environ, **environment}
    )
    return done.stdout


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    found = json.loads(python(HELP_OF_ALL))
    assert found["loaded"] == []
    commands = {"demo", "ingest", "search", "ask", "chat", "list", "show", "rm", "info", "doctor", "rebuild", "tune"}
    assert commands | {"encode", "export", "config", "config show", "config path"} <= found["shown"].keys()
    for name, text in found["shown"].items():
        if name not in ("", "config"):
            assert "--debug" in text, name


def test_arguments_are_named_as_the_readme_does() -> None:
    for command, argument in (("search", "QUERY"), ("ingest", "PATH"), ("rm", "DOC"), ("tune", "DATA")):
        usage = CliRunner().invoke(app, [command, "--help"]).stdout.partition("\n")[0]
        assert re.search(rf"{command} \[OPTIONS\] \W{argument}\W", usage), usage


def test_every_command_speaks_json() -> None:
    for name, text in json.loads(python(HELP_OF_ALL))["shown"].items():
        if name not in ("", "config", "serve", "mcp"):
            assert "--json" in text, name


def test_options_show_their_variable() -> None:
    for command, variables in (
        ("search", ("M3RAG_INDEX", "M3RAG_MODEL", "M3RAG_TOP_K", "M3RAG_MODE", "M3RAG_WEIGHTS", "M3RAG_RERANKER")),
        ("ask", ("M3RAG_INDEX", "M3RAG_ANSWER_PASSAGES", "M3RAG_MODE", "M3RAG_WEIGHTS", "M3RAG_RERANKER")),
    ):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert all(variable in text for variable in variables), text


def test_search_and_ask_share_their_options() -> None:
    shared = ("--top-k", "--mode", "--weights", "--alpha", "--fusion", "--min-score", "--diversity", "--per-document")
    for command in ("search", "ask"):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert all(f" {option} " in text for option in (*shared, "--reranker", "--filter")), text


@pytest.mark.parametrize(
    ("typed", "meant"), [(["serch", "x"], "search"), (["search", "x", "--top-kk", "3"], "--top-k"), (["shwo"], "show")]
)
def test_a_typing_error_gets_a_suggestion(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert meant in result.stderr
    assert result.stdout == ""


COMPLETE = f"""
import sys
from m3rag.cli import main
try:
    main()
finally:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, loaded
"""


def test_a_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(line: str) -> str:
        words = line.split(" ")
        environment = {"_M3RAG_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return python("import sys; sys.argv[0] = 'm3rag'" + COMPLETE, **environment)

    assert complete("m3rag sea").split() == ["search"]
    assert complete("m3rag ask --rer").split() == ["--reranker"]
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # pytest need not run below a shell
    script = CliRunner().invoke(app, ["--show-completion", "bash"]).stdout
    assert "complete" in script
