"""The benchmark of codecs on a tiny set with the fake encoder."""

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

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "codecs.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    # Under another name than the standard library's own `codecs`.
    spec = importlib.util.spec_from_file_location("codecs_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["codecs_benchmark"] = module  # dataclasses look their module up
    yield spec.loader.exec_module(module) or module
    del sys.modules["codecs_benchmark"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("ducks/en", "ducks/again"):
        folder = tmp_path / "retrieval" / name
        (folder / "qrels").mkdir(parents=True)
        texts = ["Geese fly south in winter.", "Ducks swim in ponds.", "Owls hunt mice at night.", ""]
        lines = [json.dumps({"_id": str(i), "title": "", "text": text}) for i, text in enumerate(texts)]
        (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
        questions = ["Where do ducks swim?", "Who hunt mice at night?"]
        lines = [json.dumps({"_id": f"q{i}", "text": text}) for i, text in enumerate(questions)]
        (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
        qrels = "query-id\tcorpus-id\tscore\nq0\t1\t1\nq1\t2\t1\n"
        (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return tmp_path


def test_tables_and_figures(script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    files = ["--json", str(out), "--write", str(tmp_path / "out.md")]
    encoder = HashEncoder(dense_dim=48, colbert_dim=16)
    code = script.main(["--data", str(data), "--sets", "ducks/en", "ducks/again", *files], encoder=encoder)
    assert code == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == printed
    result = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in result["colbert"]}
    # 14 words in 4 passages, 3.5 vectors a chunk; in pairs 2 + 3 + 3 + 0 are left.
    assert [rows[name]["bytes"] for name in ("float16", "int8", "int4", "binary")] == [112, 63, 35, 14]
    assert rows["float16, pooled by 2"]["bytes"] == 64
    assert rows["float16"]["ndcg@10"]["ducks/en"] == {"colbert": 100.0, "all": 100.0}
    dense = {row["name"]: row["bytes"] for row in result["dense"]}
    assert [dense[name] for name in ("float32", "float16", "int8", "binary")] == [192, 96, 50, 8]
    assert dense["PCA 24, float16"] == 48
    assert printed.count("| float16 |") == 2


def test_a_set_that_is_missing_is_named(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--data", str(tmp_path), "--sets", "no/such"], encoder=HashEncoder()) == 2
    assert "no/such" in capsys.readouterr().err


def test_pca_with_all_components_changes_no_score_and_a_rescored_scan_keeps_its_best(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:5]
    whole = script._shortened(24, pca=True)(vectors)(queries)
    np.testing.assert_allclose(whole, queries @ vectors.T, atol=2e-3)
    rescored = script._rescored(vectors)(queries)
    true = script._coded("int8")(vectors)(queries)
    assert np.isclose(rescored, true).sum(axis=1).tolist() == [script.RESCORED] * 5
    best = np.argsort(-rescored, axis=1)[:, : script.RESCORED]
    assert np.isclose(np.take_along_axis(rescored, best, 1), np.take_along_axis(true, best, 1)).all()
