"""`m3rag mine` as a user would type it, on the real `mini`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from m3rag.cli.mine import mine
from m3rag.collection import Collection
from m3rag.knowledge_base import KnowledgeBase
from m3rag.training.data import load_examples
from m3rag.types import Chunk

PASSAGES = ["Ducks swim in ponds.", "Swans swim in lakes.", "The bakery sells bread.", "Trains leave at noon."]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"query": "Where do ducks swim?", "pos": [PASSAGES[0]], "neg": [PASSAGES[3]]},
        {"query": "Wo schwimmen Schwäne?", "pos": [PASSAGES[1]]},
    ]
    path = tmp_path / "birds.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(mine)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_mine_in_a_corpus(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_INDEX", "of-other-commands")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"_id": str(i), "text": t}) for i, t in enumerate(PASSAGES)))
    result = run(data, "--corpus", corpus, "--out", "mined.jsonl", "--negatives", 2, "--share", 0)
    assert result.exit_code == 0, result.output
    assert result.stdout == "4 negatives for 2 questions in mined.jsonl\n"
    first, second = load_examples(tmp_path / "mined.jsonl")
    assert first.negatives[0] == PASSAGES[1]
    assert second.negatives[0] == PASSAGES[0]


def test_mine_among_the_passages_of_the_data(data: Path, tmp_path: Path) -> None:
    result = run(data.parent, "--out", "mined", "--json", "--share", 0)
    shown = json.loads(result.stdout)
    assert (shown["schema"], shown["examples"], shown["negatives"], shown["without"]) == ("m3rag.mine/1", 2, 4, 0)
    found = load_examples(tmp_path / "mined")
    assert set(found[0].negatives) == {PASSAGES[1], PASSAGES[3]}


def test_a_run_that_ended_early_goes_on_with_the_passages_it_encoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    upsert = Collection.upsert

    def counted(self: Collection, chunks: list[Chunk]) -> None:
        written.append(len(chunks))
        upsert(self, chunks)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "upsert", counted)
    command = (data, "--out", "mined.jsonl", "--share", 0)
    with monkeypatch.context() as patched:
        patched.setattr("m3rag.training.mining_files.mine_files", killed)
        assert run(*command).exit_code == 130
    assert run(*command).exit_code == 0
    assert written == [3, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"birds.jsonl", "mined.jsonl"}
    with monkeypatch.context() as patched:
        patched.setattr("m3rag.training.mining_files.mine_files", killed)
        assert run(data, "--out", "again.jsonl").exit_code == 130
    data.write_text(data.read_text(encoding="utf-8").replace("leave", "arrive"), encoding="utf-8")
    assert run(data, "--out", "again.jsonl", "--share", 0).exit_code == 0
    assert written[2:] == [3, 3], "passages of other data are not searched"


def test_mine_in_an_index(data: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for i, text in enumerate(PASSAGES):
        (tmp_path / "files" / f"{i}.txt").write_text(text)
    with KnowledgeBase(tmp_path / "index") as kb:
        kb.ingest(tmp_path / "files")
    result = run(data, "--index", tmp_path / "index", "--out", "mined.jsonl", "--share", 0, "--last", 2)
    assert result.exit_code == 0, result.output
    assert load_examples(tmp_path / "mined.jsonl")[0].negatives == (PASSAGES[1],)


def test_what_is_wrong_is_said(data: Path, tmp_path: Path) -> None:
    for options, code, told in (
        (("--index", "i", "--corpus", "c"), 2, "give one of them at most"),
        (("--index", "absent"), 4, "absent"),
        (("--teacher-margin", "1"), 2, "--teacher-margin has no part without --teacher"),
        (("--out", tmp_path), 2, "is a folder, and one file of data becomes one file"),
        (("--mode", "bm25"), 3, "cannot be compared"),
        (("--corpus", "absent.jsonl"), 2, "is not there"),
    ):
        result = run(data, "--out", "m.jsonl", *options)
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in result.stderr
    result = run("absent.jsonl", "--out", "m.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "absent.jsonl holds no .jsonl training files" in result.stderr
    result = run(data, "--out", data)
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert not (tmp_path / "m.jsonl").exists()
