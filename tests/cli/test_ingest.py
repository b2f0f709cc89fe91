"""`m3rag ingest --sync`, `--dry-run` and `--watch` on the real `mini`, as a user would type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    papers = tmp_path / "papers"
    papers.mkdir()
    for name in ("a.md", "b.md", "c.txt"):
        (papers / name).write_text(f"The text of {name} speaks of ducks.\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def documents() -> list[str]:
    return [document["id"] for document in run_json("list", "-i", "i")["documents"]]


def test_a_folder_is_mirrored() -> None:
    assert run("ingest", "papers", "-i", "i").exit_code == 0
    Path("papers/a.md").unlink()
    Path("papers/b.md").rename("papers/d.md")
    Path("papers/c.txt").write_text("Another text.")
    Path("papers/bad.pdf").write_bytes(b"%PDF-1.4 nothing more")
    dry = run("ingest", "papers", "-i", "i", "--sync", "--dry-run")
    assert "nothing was done; would be:" in dry.stderr
    assert documents() == ["a.md", "b.md", "c.txt"]
    result = run("ingest", "papers", "-i", "i", "--sync")
    assert result.exit_code == 1
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "d.md  (was b.md)" in lines["renamed"]
    assert "c.txt" in lines["updated"]
    assert lines["removed"].split() == ["removed", "a.md"]
    assert "bad.pdf" in lines["failed"]
    assert "1 updated, 1 renamed, 1 removed, 1 failed" in result.stderr
    assert documents() == ["c.txt", "d.md"]


def test_json_says_what_was_done() -> None:
    found = run_json("ingest", "papers", "-i", "i", "--sync", "--include", "*.md", "--exclude", "b.*")
    assert found["schema"] == "m3rag.ingest/1"
    assert found["counts"] == {"added": 1, "updated": 0, "renamed": 0, "unchanged": 0, "removed": 0, "failed": 0}
    assert [(r["document_id"], r["status"], r["encoded"]) for r in found["results"]] == [("a.md", "added", 1)]
    assert not found["dry_run"]


def test_an_emptied_folder_asks_for_a_yes() -> None:
    assert run("ingest", "papers", "-i", "i").exit_code == 0
    for path in Path("papers").iterdir():
        path.unlink()
    result = run("ingest", "papers", "-i", "i", "--sync")
    assert result.exit_code == 2
    assert "3 of the 3 documents" in result.stderr
    assert "--yes" in result.stderr
    assert len(documents()) == 3
    assert run("ingest", "papers", "-i", "i", "--sync", "--yes").exit_code == 0
    assert documents() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--watch", "--dry-run"], "leave one out"),
        (["--password-file", "nowhere"], "could not be read"),
        (["--password-file", "empty"], "no password in its first line"),
        (["--exclude", "!"], ".gitignore"),
        (["elsewhere", "--watch"], "no such file"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    Path("empty").touch()
    result = run("ingest", "papers", "-i", "i", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("i").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one child")
def test_watching_until_interrupted(folder: Path) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from m3rag.cli import main; main()"
    command = [sys.executable, "-c", code, "ingest", "papers", "-i", "i", "--watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            assert [process.stdout.readline().split()[:2] for _ in range(3)] == [
                ["added", "a.md"],
                ["added", "b.md"],
                ["added", "c.txt"],
            ]
            Path("papers/new.md").write_text("A new one about zebras.\n")
            assert process.stdout.readline().split()[:2] == ["added", "new.md"]
            Path("papers/a.md").unlink()
            assert process.stdout.readline().split()[:2] == ["removed", "a.md"]
            Path("papers/b.md").rename("papers/z.md")
            assert process.stdout.readline().split()[:2] == ["renamed", "z.md"]
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            watchdog.cancel()
    assert process.returncode == 130, errors
    assert rest == ""
    assert "Traceback" not in errors
    assert "watching papers every 0.1 s" in errors
    assert documents() == ["c.txt", "new.md", "z.md"]


@pytest.mark.parametrize("option", [("--file-mb", "inf"), ("--file-mb", "1e300"), ("--file-seconds", "inf")])
def test_limits_that_are_none(option: tuple[str, str]) -> None:
    result = run("ingest", "papers", "-i", "i", *option)
    assert result.exit_code == 2, result.output
    assert "bug" not in result.stderr
    assert not Path("i").exists()
