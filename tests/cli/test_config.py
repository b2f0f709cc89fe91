"""`m3rag config` says where each setting comes from, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["config", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_settings_with_their_origins_and_without_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m3rag.toml").write_text("top_k = 2\n[llm]\nmodel = 'from-file'\n")
    Path(".env").write_text("M3RAG_MODE=dense\nM3RAG_LLM__API_KEY=hush-hush\n")
    monkeypatch.setenv("M3RAG_CHUNK_TOKENS", "100")
    shown = run("show", "--origin")
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert lines["top_k"].endswith(str(folder / "m3rag.toml"))
    assert lines["mode"].split()[1:] == ["dense", str(folder / ".env")]
    assert lines["chunk_tokens"].split()[1:] == ["100", "M3RAG_CHUNK_TOKENS"]
    assert lines["weights"].split()[1:] == ["miracl", "default"]
    assert lines["llm.api_key"].split()[1:] == ["***", str(folder / ".env")]
    found = run("show", "--json")
    by_name = {setting["name"]: setting for setting in json.loads(found.stdout)["settings"]}
    assert by_name["llm.model"] == {
        "name": "llm.model",
        "value": "from-file",
        "origin": str(folder / "m3rag.toml"),
        "variable": "M3RAG_LLM__MODEL",
    }
    assert "hush" not in shown.output + found.output
    assert "default" not in run("show").stdout


def test_files_that_hold_settings(folder: Path) -> None:
    result = run("path")
    assert (result.stdout, str(folder / "config" / "m3rag" / "m3rag.toml") in result.stderr) == ("", True)
    Path("m3rag.toml").write_text("top_k = 2\n")
    Path(".env").write_text("M3RAG_MODE=dense\n")
    assert run("path").stdout.split() == [str(folder / ".env"), str(folder / "m3rag.toml")]
    assert json.loads(run("path", "--json").stdout)["files"] == [str(folder / ".env"), str(folder / "m3rag.toml")]


def test_a_bad_file_is_exit_code_3() -> None:
    Path("m3rag.toml").write_text("topk = 2\n")
    result = CliRunner().invoke(app, ["config", "show"])
    assert result.exit_code == 3
    assert "did you mean top_k" in result.stderr
