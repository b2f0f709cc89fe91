"""`m3rag doctor`: exit code and what it prints; the checks have tests of their own."""

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
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_nothing_wrong_is_exit_code_0() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stderr.strip() == "nothing is wrong"
    assert any(line.startswith("info     index") for line in result.stdout.splitlines())
    assert "-> m3rag ingest FOLDER --index m3rag-index" in result.stdout


def test_problems_are_exit_code_1_and_each_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_TOPK", "3")
    monkeypatch.setenv("M3RAG_LLM__MODEL", "any")
    monkeypatch.setenv("M3RAG_LLM__BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("M3RAG_LLM__API_KEY", "hush-hush")
    result = run("--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert (found["schema"], found["healthy"]) == ("m3rag.doctor/1", False)
    problems = [check for check in found["checks"] if check["severity"] in ("warning", "error")]
    assert [check["name"] for check in problems] == ["variables", "language model"]
    assert all(check["remedy"] for check in problems)
    shown = run()
    assert "warning  variables" in shown.stdout
    assert "2 problems found" in shown.stderr
    assert "hush" not in result.output + shown.output


def test_an_index_that_is_none_is_a_problem(folder: Path) -> None:
    (folder / "i").mkdir()
    (folder / "i" / "manifest.json").write_text("{")
    result = run("-i", "i")
    assert result.exit_code == 1
    assert "damaged" in result.stdout
