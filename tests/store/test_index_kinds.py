"""The benchmark of index kinds on a few vectors."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from m3rag.testing import HashEncoder

pytest.importorskip("faiss", reason="the benchmark compares with FAISS: pip install faiss-cpu")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "index_kinds.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("index_kinds", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["index_kinds"] = module  # dataclasses look their module up
    yield spec.loader.exec_module(module) or module
    del sys.modules["index_kinds"]


def test_every_kind_has_its_rows_and_exact_scans_find_all(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "retrieval" / "birds"
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": str(i), "text": f"Bird {i} eats {i % 7} seeds."}) for i in range(40)]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    lines = [json.dumps({"_id": str(i), "text": f"What does bird {i} eat?"}) for i in range(5)]
    (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    qrels = "query-id\tcorpus-id\tscore\n" + "".join(f"{i}\t{i}\t1\n" for i in range(5))
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    out = tmp_path / "out.json"
    options = ["--data", str(tmp_path), "--sets", "birds", "--n", "300", "--queries", "3", "--json", str(out)]
    assert script.main(options, encoder=HashEncoder()) == 0
    assert "300 vectors of 32 dimensions, 40 of real passages; 3 real questions" in capsys.readouterr().out
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    kinds = " ".join(row["kind"] for row in rows)
    assert all(kind in kinds for kind in ("flat", "binary", "HNSW16", "IVF", "Qdrant Edge HNSW (m=16"))
    exact = [row for row in rows if "exact" in row["kind"] or "float32" in row["kind"]]
    assert [row["recall_10"] for row in exact] == [1, 1]
    assert all(0 < row["recall_10"] <= 1 and row["bytes_a_vector"] > 0 for row in rows)
    sizes = {row["kind"].split(" (")[0]: row["bytes_a_vector"] for row in rows}
    assert sizes["FAISS flat float16"] < sizes["FAISS flat float32"] < sizes["FAISS HNSW"]


def test_vectors_are_made_only_where_real_ones_are_too_few(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(20, 8)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    np.testing.assert_array_equal(script.grown(real, 15, rng), real[:15])
    more = script.grown(real, 50, rng)
    np.testing.assert_array_equal(more[:20], real)
    np.testing.assert_allclose(np.linalg.norm(more, axis=1), 1, atol=1e-5)
    assert len(np.unique(more, axis=0)) == 50
