"""`m3rag encode` as a user would type it: its own Ray session, which ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3rag.bulk import read_encoded
from m3rag.cli.app import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    rows = [{"key": f"k{i}", "passage": f"Duck number {i} swims."} for i in range(5)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def processes_with(variable: str) -> set[str]:
    """Ids of all processes whose environment has a variable, as every process inherits it that Ray starts."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        # A process may end meanwhile, or be another user's.
        with contextlib.suppress(OSError):
            if variable.encode() in environment.read_bytes():
                found.add(environment.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells the environment of processes")
def test_a_corpus_is_encoded_and_nothing_is_left_running(folder: Path, tiny_checkpoint: Path) -> None:
    mark = f"TEST_RUN_{uuid.uuid4().hex}"
    code = "from m3rag.cli import main; main()"
    options = ["--model", str(tiny_checkpoint), "--text-field", "passage", "--id-field", "key", "--max-length", "16"]
    run = subprocess.run(
        [sys.executable, "-c", code, "encode", "in.jsonl", "--out", "out", *options, "--json"],
        env={**{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}, mark: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    counts = {"texts": 5, "shards": 1, "kept": 0, "cut": 0}
    assert json.loads(run.stdout) == {"schema": "m3rag.encode/1", "out": "out", **counts}
    assert "rror" not in run.stderr
    assert [id for ids, _ in read_encoded("out") for id in ids] == [f"k{i}" for i in range(5)]
    assert json.loads((folder / "out" / "manifest.json").read_text())["max_length"] == 16
    deadline = time.monotonic() + 60
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_with(mark)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.jsonl", "-o", "out"], 2, "nothing.jsonl does not exist"),
        (["in.jsonl", "-o", "out"], 2, "in.jsonl:1: there is no field 'id'; there are 'key', 'passage'"),
        ([".", "-o", "out"], 2, "lies in the input"),
        (["in.jsonl"], 2, "--out"),
        (["in.jsonl", "-o", "out", "--role", "passage"], 2, "--role"),
        (["in.jsonl", "-o", "out", "--concurrency", "0"], 2, "--concurrency"),
    ],
)
def test_mistakes_are_told_before_ray_is_started(arguments: list[str], code: int, message: str) -> None:
    result = CliRunner().invoke(app, ["encode", *arguments])
    assert result.exit_code == code
    assert message in result.stderr
