"""`make compat` asks for every environment; what there is none of is named."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "compat.py"))


def test_without_a_kind_all_are_tried() -> None:
    assert TOOL["options_of"]([]).kinds == ["newest", "lowest", "migrate", "milvus"]
    assert TOOL["options_of"](["lowest"]).kinds == ["lowest"]


def test_a_kind_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        TOOL["options_of"](["lowest", "oldest"])
    assert "there is no oldest: choose among newest, lowest" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["newest", "lowest", "migrate", "milvus"])
def test_what_an_environment_holds_can_be_told(kind: str) -> None:
    assert any(requirement.startswith("pytest") for requirement in TOOL["packages"](kind))
