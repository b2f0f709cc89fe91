"""The benchmark's two tables on few texts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from m3rag.testing import HashEncoder

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bm25.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_bm25", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_of_tokenizers(script: ModuleType, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(shared_data), "--sets", "xquad/mono/zh"]
    assert script.main(options, encoder=HashEncoder()) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| nDCG@10 x 100 | english | words | encoder |"
    assert row.startswith("| xquad/mono/zh | 10.7 | 96.")


def test_a_table_of_sizes(script: ModuleType, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--data", str(shared_data), "--sizes", "60", "--queries", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["bm25s", "rank-bm25"]
    assert len({line.count("|") for line in lines}) == 1
