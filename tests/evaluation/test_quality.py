"""The benchmark's command line on a tiny set with the fake encoder."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from m3rag.testing import HashEncoder

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RememberingEncoder(HashEncoder):
    """Remembers what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Any) -> Any:
        self.encoded += texts
        return super().encode_documents(texts)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, question in (("mono/en", "Where do ducks swim?"), ("to-en/de", "Wo swim ducks?"), ("mono/zh", "天鹅")):
        folder = tmp_path / "retrieval" / name
        (folder / "qrels").mkdir(parents=True)
        texts = ["鸭子游泳", "天鹅是白色的鸟"] if name == "mono/zh" else ["Geese fly.", "Ducks swim in ponds."]
        lines = [json.dumps({"_id": str(i), "title": "", "text": text}) for i, text in enumerate(texts)]
        (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": question}), encoding="utf-8")
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n", encoding="utf-8")
    return tmp_path


def test_a_table_and_its_figures(
    quality: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = RememberingEncoder()
    files = ["--json", str(tmp_path / "out.json"), "--write", str(tmp_path / "out.md")]
    sets = ["mono/en", "mono/zh", "to-en/de"]
    assert quality.main(["--data", str(data), *files, "--sets", *sets], encoder=encoder) == 0
    printed = capsys.readouterr().out
    assert "| set | queries | passages | bm25 | dense | lexical | colbert | dense+lexical | all |" in printed
    assert "| mono/en | 1 | 2 | **100.0** | **100.0** |" in printed
    assert "| mono/zh | 1 | 2 | **100.0** † |" in printed
    assert (tmp_path / "out.md").read_text(encoding="utf-8").endswith(printed)

    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (result["model"], result["schema"], result["metric"]) == ("hash", 1, "ndcg@10")
    assert [row["set"] for row in result["rows"]] == sets
    assert [row["bm25_tokens"] for row in result["rows"]] == ["english", "encoder", "english"]
    assert result["rows"][0]["ndcg@10"].keys() == set(quality.COLUMNS)
    assert encoder.encoded.count("Geese fly.") == 1, "the English corpus is shared by two sets"


def test_encoded_texts_are_kept(
    quality: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = RememberingEncoder()
    command = ["--data", str(data), "--sets", "mono/en", "--cache", str(tmp_path / "texts.cache")]
    assert quality.main(command, encoder=encoder) == 0
    seen, printed = list(encoder.encoded), capsys.readouterr().out
    assert quality.main(command, encoder=encoder) == 0
    assert encoder.encoded == seen
    assert capsys.readouterr().out.splitlines()[2:] == printed.splitlines()[2:], "but for the seconds"


def test_a_missing_set_is_named(quality: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quality.main(["--data", str(data), "--sets", "mono/fr"], encoder=HashEncoder()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "mono/fr/corpus.jsonl is missing" in captured.err


def test_the_default_sets_are_there(quality: ModuleType, shared_data: Path) -> None:
    for name in (*quality.DEFAULT_SETS, *quality.MORE_SETS):
        assert (shared_data / "retrieval" / name / "corpus.jsonl").is_file()
