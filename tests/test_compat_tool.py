"""`make compat` asks for every environment; what there is none of is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "compat.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compat_tool", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_kind_all_are_tried(script: ModuleType) -> None:
    assert script.options_of([]).kinds == ["newest", "lowest", "migrate", "milvus"]
    assert script.options_of(["lowest"]).kinds == ["lowest"]


def test_a_kind_that_there_is_not_is_named(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.options_of(["lowest", "oldest"])
    assert "there is no oldest: choose among newest, lowest" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["newest", "lowest", "migrate", "milvus"])
def test_what_an_environment_holds_can_be_told(script: ModuleType, kind: str) -> None:
    assert script.packages(kind)
