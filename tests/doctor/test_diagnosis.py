from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m3rag.doctor import Check, diagnose
from m3rag.doctor.diagnosis import guarded
from m3rag.errors import ConfigurationError


def test_everything_is_looked_at_and_nothing_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_TOPK", "3")
    monkeypatch.setenv("M3RAG_CACHE", str(folder / "cache"))
    checks = {check.name: check for check in diagnose(index="i")}
    expected = {"m3rag", "settings", "variables", "cache", "disk", "model", "device", "index", "language model"}
    assert expected <= checks.keys()
    assert any(name.startswith("extra ") for name in checks)
    assert [name for name, check in checks.items() if check.is_problem] == ["variables"]
    assert checks["variables"].remedy == "unset M3RAG_TOPK"
    assert all(check.remedy for check in checks.values() if check.is_problem)
    assert [path.name for path in folder.iterdir()] == [".git"]


def test_settings_that_cannot_be_read_leave_the_rest_to_be_looked_at(folder: Path) -> None:
    Path("m3rag.toml").write_text("topk = 3\n")
    checks = {check.name: check for check in diagnose()}
    assert checks["settings"].severity == "error"
    assert "did you mean top_k" in checks["settings"].message
    assert str(folder / "m3rag.toml") in (checks["settings"].remedy or "")
    assert checks["cache"].severity == "ok"
    assert "index" not in checks


@pytest.mark.parametrize("line", ["mode = 'foo'", "weights = 'bar'"])
def test_settings_that_no_search_takes_are_a_problem(folder: Path, line: str) -> None:
    Path("m3rag.toml").write_text(line)
    found = next(check for check in diagnose() if check.name == "settings")
    assert found.severity == "error"
    assert found.message.startswith(f"setting {line.partition(' ')[0]}: unknown ")
    assert str(folder / "m3rag.toml") in found.message


@pytest.mark.parametrize("error", [ConfigurationError("settings contradict"), RuntimeError("a bug")])
def test_a_check_that_fails_is_a_finding_and_not_the_end(error: Exception) -> None:
    def checks() -> Iterator[Check]:
        yield Check("first", "ok", "")
        raise error

    first, second = guarded("index", checks())
    assert (first.name, second.name, second.severity) == ("first", "index", "error")
    assert str(error) in second.message
    assert second.remedy


def test_a_home_of_someone_else_is_a_finding(folder: Path, shut: Callable[[Path], None]) -> None:
    shut(folder / "config")
    checks = {check.name: check for check in diagnose()}
    assert "Permission denied" in checks["settings"].message
    assert "export HOME" in (checks["settings"].remedy or "")
    assert checks["cache"].severity == "ok"
