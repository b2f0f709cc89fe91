"""`m3rag tune` on the real `mini`, on a small index on disk, as a user would type it."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.knowledge_base import KnowledgeBase
from m3rag.types import Hit

TOPICS = (
    ("Ducks swim in ponds and eat grass.", "Wo schwimmen Enten?"),
    ("The bakery sells fresh bread.", "Wer verkauft Brot?"),
    ("Our train leaves at noon.", "Wann fährt der Zug?"),
    ("The doctor treats a fever.", "Wer behandelt Fieber?"),
    ("Snow falls in the mountains.", "Wo fällt Schnee?"),
    ("The court judges thieves.", "Wer richtet über Diebe?"),
)
CODES = [str(7 * i * i + 131 * i + 1017) for i in range(42)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 42 files of a sentence and a number."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "parts").mkdir()
    for i, code in enumerate(CODES):
        (folder / "parts" / f"{i:02}.txt").write_text(f"{TOPICS[i % 6][0]} ({code})")
    with KnowledgeBase(folder / "i") as kb:
        assert kb.ingest(folder / "parts").count("added") == 42
    return folder / "i"


@pytest.fixture(autouse=True)
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own with a copy of the index, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    shutil.copytree(made, tmp_path / "i")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def write(name: str, questions: Sequence[tuple[str, str]]) -> str:
    lines = [json.dumps({"query": query, "relevant": [relevant]}) for query, relevant in questions]
    Path(name).write_text("\n".join(lines), encoding="utf-8")
    return name


def misleading() -> str:
    """Questions whose number is that of the file wanted, and whose words are about another."""
    asked = [(f"{TOPICS[(i + 1) % 6][1]} {TOPICS[(i + 1) % 6][1]} {CODES[i]}", f"{i:02}.txt") for i in range(36)]
    return write("misleading.jsonl", asked)


def easy(n: int = 36) -> str:
    return write("easy.jsonl", [(f"{TOPICS[i % 6][0]} ({CODES[i]})", f"{i:02}.txt") for i in range(n)])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def kept() -> dict[str, Any]:
    with KnowledgeBase("i") as kb:
        return dict(kb.store.settings)


def test_what_is_learned_is_written_and_then_searched_with() -> None:
    search = ("search", f"Wo schwimmen Enten? {CODES[6]}", "-i", "i")
    before = run_json(*search)["hits"]
    found = run_json("tune", misleading(), "-i", "i")
    assert found["schema"] == "m3rag.tune/1"
    assert (found["verdict"], found["questions"], found["default"]) == ("learned", 36, "1/0.3/1")
    assert found["gain"]["low"] > 0
    assert found["score"] > found["default_score"] == pytest.approx(found["baselines"]["miracl"])
    assert found["weights"] == found["learned"] == found["written"]["weights"] == kept()["weights"]
    assert len(found["folds"]) == 5
    assert kept()["tuned"]["questions"] == 36

    dense, lexical, colbert = (float(weight) for weight in found["weights"].split("/"))
    assert lexical > max(dense, colbert), "the number alone tells which file is meant"
    after = run_json(*search)["hits"]
    assert [h["score"] for h in after] != [h["score"] for h in before]
    assert run_json(*search, "--weights", "miracl")["hits"] == before
    assert run_json(*search, "--weights", found["weights"])["hits"] == after

    assert "forgot the weights" in run("tune", "--reset", "-i", "i").stdout
    assert kept() == {}
    assert run_json(*search)["hits"] == before
    assert run_json("tune", "--reset", "-i", "i") == {"schema": "m3rag.tune/1", "index": "i", "forgotten": None}


def test_a_reranker_in_a_folder_is_kept_so_that_any_folder_finds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Same:
        def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
            return list(hits)

    def named(name: str, *_: object) -> Same:
        asked.append(name)
        return Same()

    monkeypatch.setattr("m3rag.reranking.named.reranker_named", named)
    (folder / "mine").mkdir()
    (folder / "colbert").mkdir()
    for given, name in (("mine", str(folder / "mine")), ("me/on-the-hub", "me/on-the-hub"), ("colbert", "colbert")):
        written = run_json("tune", misleading(), "-i", "i", "--reranker", given)["written"]["rerank"]
        assert (asked[-1], written["reranker"], kept()["rerank"]["reranker"]) == (given, name, name)


def test_a_dry_run_shows_all_and_writes_nothing() -> None:
    result = run("tune", misleading(), "-i", "i", "--dry-run")
    assert result.exit_code == 0
    for shown in ("ndcg@10", "miracl", "mldr", "equal", "dense", "lexical", "colbert", "learned, held out"):
        assert shown in result.stdout
    assert "36 questions, 5 folds" in result.stdout
    assert "not written (--dry-run)" in result.stdout
    assert result.stderr == ""
    assert kept() == {}


def test_weights_that_do_not_help_are_written_by_force_alone() -> None:
    result = run("tune", easy(), "-i", "i")
    assert result.exit_code == 0
    assert "no weights written: the learned weights do not help" in result.stdout
    assert kept() == {}
    assert "written: weights 1/0.3/1" in run("tune", easy(), "-i", "i", "--force").stdout
    assert kept()["weights"] == "1/0.3/1"
    again = run("tune", easy(), "-i", "i").stdout
    assert "the index keeps 1/0.3/1, which `m3rag tune --reset` forgets" in again


def test_your_own_settings_go_first_and_this_is_said() -> None:
    Path("m3rag.toml").write_text('weights = "mldr"\n')
    result = run("tune", misleading(), "-i", "i")
    assert result.exit_code == 0
    assert "your settings name weights (mldr)" in result.stderr


def test_too_few_to_tell_is_exit_code_1_with_the_number_needed() -> None:
    # Of five labels one follows the number, one the topic, and the rest neither: gains are hidden in noise.
    asked = []
    for i in range(36):
        topic = (i + 1) % 42
        wanted = {0: i, 1: topic}.get(i % 5, (4 * i + 11) % 42)
        asked.append((f"{TOPICS[topic % 6][1]} {CODES[i]}", f"{wanted:02}.txt"))
    result = run("tune", write("noisy.jsonl", asked), "-i", "i")
    assert result.exit_code == 1, result.output
    assert "too few questions to tell" in result.stdout
    assert "are needed to tell a gain of 0.02 from none" in result.stdout
    assert kept() == {}
    forced = run("tune", "noisy.jsonl", "-i", "i", "--force")
    assert forced.exit_code == 0
    assert "weights" in kept()


def test_a_beir_folder_and_what_is_missing(folder: Path) -> None:
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    ids = [f"{i:02}.txt" for i in range(42)] + ["gone.txt"]
    (beir / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": i, "text": i}) for i in ids))
    queries = [(f"q{i}", f"{TOPICS[i % 6][0]} {CODES[i]}") for i in range(36)]
    (beir / "queries.jsonl").write_text("\n".join(json.dumps({"_id": i, "text": t}) for i, t in queries))
    rows = [f"q{i}\t{i:02}.txt\t1" for i in range(35)] + ["q35\tgone.txt\t1"]
    (beir / "qrels" / "dev.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))

    result = run("tune", "beir", "-i", "i")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the splits there are: dev" in result.stderr
    result = run("tune", "beir", "-i", "i", "--split", "dev")
    assert result.exit_code == 2
    assert "1 of 36 questions" in result.stderr
    assert "gone.txt" in result.stderr
    found = run_json("tune", "beir", "-i", "i", "--split", "dev", "--skip-missing", "--metric", "mrr@5", "--folds", "3")
    assert (found["questions"], found["skipped"], found["metric"], len(found["folds"])) == (35, ["q35"], "mrr@5", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["few.jsonl", "-i", "i"], 2, "29 labelled questions are too few to learn weights from: 30 are needed"),
        (["nowhere.jsonl", "-i", "i"], 2, "nowhere.jsonl is missing"),
        (["bad.jsonl", "-i", "i"], 2, "bad.jsonl:1"),
        (["-i", "i"], 2, "give labelled questions"),
        (["easy.jsonl", "--reset", "-i", "i"], 2, "--reset alone"),
        (["easy.jsonl", "--dry-run", "--force", "-i", "i"], 2, "--dry-run and --force"),
        (["easy.jsonl", "-i", "i", "--metric", "map"], 2, "unknown metric 'map'"),
        (["easy.jsonl", "-i", "other", "--metric", "map"], 2, "unknown metric 'map'"),
        (["easy.jsonl", "-i", "i", "--split", "dev"], 2, "--split is of a folder in BEIR's form"),
        (["easy.jsonl", "-i", "i", "--folds", "1"], 2, "--folds"),
        (["easy.jsonl", "-i", "other"], 4, "m3rag ingest"),
        (["--reset", "-i", "other"], 4, "m3rag ingest"),
        (["easy.jsonl", "-i", "i", "--reranker", "nosuch"], 5, "nosuch"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, message: str) -> None:
    Path("few.jsonl").write_text(Path(easy(29)).read_text(encoding="utf-8"), encoding="utf-8")
    Path("bad.jsonl").write_text('{"query": "q"}')
    easy()
    result = run("tune", *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert kept() == {}


def test_interrupted_it_has_written_nothing() -> None:
    many = write("many.jsonl", [(f"Wo schwimmen Enten? {i}", "00.txt") for i in range(20_000)])
    ended = threading.Event()

    def interrupt() -> None:
        wait = 5
        while not ended.wait(wait):
            signal.raise_signal(signal.SIGINT)
            wait = 60  # once more: hypothesis has a callback in the garbage collector, where an interrupt is lost

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        result = run("tune", many, "-i", "i", "--force")
    finally:
        ended.set()
        thread.join()
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.stderr
    assert kept() == {}
