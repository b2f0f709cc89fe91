"""The benchmark's figures on few texts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.encoder import M3Encoder

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chunking.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_chunking", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_answers_are_found_in_their_articles(script: ModuleType, shared_data: Path) -> None:
    benchmark = script.Benchmark.load(shared_data, articles=48)
    assert (len(benchmark.articles), len(benchmark.questions)) == (48, 933)
    assert len(benchmark.answers) == 664
    for question, spans in benchmark.answers.items():
        article = benchmark.articles[next(iter(benchmark.qrels[question]))]
        assert len({article[a:b] for a, b in spans}) == 1
    assert len(script.Benchmark.load(shared_data, articles=6).articles) == 6


def test_every_strategy_has_a_row(script: ModuleType) -> None:
    ducks = "Ducks swim on ponds. " * 20 + "The oldest duck lived for 49 years. " + "Ducks eat bread. " * 20
    banks = "Banks lend money. " * 40
    at = ducks.index("49 years")
    benchmark = script.Benchmark(
        {"ducks": ducks, "banks": banks},
        {"q": "How old was the oldest duck?"},
        {"q": {"ducks": 1}},
        {"q": [(at, at + len("49 years"))]},
    )
    encoder = M3Encoder("mini", device="cpu")
    cached = CachedEncoder(encoder, MemoryCache())
    rows = [script.measure(benchmark, encoder, cached, strategy, 64) for strategy in script.STRATEGIES]
    for row in rows:
        assert row["chunks"] > 4
        for mode in ("dense", "all"):
            assert row[mode]["ndcg@10"] == row[mode]["recall@5"] == 1.0
            assert row[mode]["answer@1000tokens"] == 1.0
            assert 64 < row[mode]["tokens@5"] <= 5 * 64
    result = {"articles": 2, "questions": 1, "answers": 1, "model": "mini", "cpus": 1, "rows": rows}
    assert script.markdown(result).splitlines()[-1].startswith("| late-all | 64 |")
