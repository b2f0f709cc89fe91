"""`m3rag eval` on the real `mini`, as a user would type it."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.encoder import M3Encoder
from m3rag.evaluation import report, searching
from m3rag.knowledge_base import KnowledgeBase
from m3rag.retrieval.stages import Stages

TEXTS = (
    "Ducks swim in ponds and eat grass.",
    "The bakery sells fresh bread at dawn.",
    "Our train leaves at noon from the third platform.",
    "The doctor treats a fever with cold water.",
    "Snow falls in the mountains from November to April.",
    "The court judges thieves on Mondays.",
)
ASKED = (
    ("en", "Where do ducks swim?", "ponds"),
    ("en", "What does the bakery sell?", "fresh bread"),
    ("de", "Wann fährt der Zug ab?", "noon"),
    ("de", "Womit behandelt der Arzt Fieber?", "cold water"),
)


@pytest.fixture(scope="module")
def mini() -> M3Encoder:
    return M3Encoder("mini")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, mini: M3Encoder) -> Path:
    """An index of six files."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "files").mkdir()
    for i, text in enumerate(TEXTS):
        (folder / "files" / f"{i}.txt").write_text(text)
    with KnowledgeBase(folder / "i", encoder=mini) as kb:
        assert kb.ingest(folder / "files").count("added") == len(TEXTS)
    return folder / "i"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini: M3Encoder) -> Path:
    """A working folder of its own, so that no setting of this machine counts; the model is loaded once."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("m3rag.encoder.loaded.loaded", lambda *_, **__: mini)
    return tmp_path


def lines(name: str, records: Sequence[dict[str, Any]]) -> str:
    Path(name).write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return name


def questions() -> str:
    """Four questions with answers, and one that nothing answers."""
    told = [
        {"id": f"q{i}", "question": query, "answers": [answer], "gold_ids": [f"{i}.txt"], "lang": lang}
        for i, (lang, query, answer) in enumerate(ASKED)
    ]
    return lines("qa.jsonl", [*told, {"id": "no", "question": "Who painted it?", "answers": [], "lang": "en"}])


def beir() -> str:
    """The same as a folder in BEIR's form, with one passage that is longer than the model."""
    Path("beir/qrels").mkdir(parents=True)
    long = " ".join(["Nothing is said of animals here."] * 120) + " A walrus sleeps on ice."
    texts = [*TEXTS, long]
    lines("beir/corpus.jsonl", [{"_id": str(i), "title": "", "text": text} for i, text in enumerate(texts)])
    asked = [*ASKED, ("en", "Where does the walrus sleep?", "")]
    lines(
        "beir/queries.jsonl",
        [{"_id": f"q{i}", "text": query, "lang": lang} for i, (lang, query, _) in enumerate(asked)],
    )
    rows = [f"q{i}\t{6 if i == 4 else i}\t1" for i in range(5)]
    Path("beir/qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return "beir"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def run_json(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_table_of_modes_metrics_and_languages_with_answers(index: Path) -> None:
    result = run(questions(), "-i", index, "--answers", "--out", "out")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line[:15].strip(): line[15:].split() for line in result.stdout.splitlines()[:7]}
    assert rows[""] == ["ndcg@10", "recall@100", "mrr@10", "hit@1", "p50", "ms", "p95", "ms"]
    for mode in ("dense", "lexical", "colbert", "dense+lexical", "all", "bm25"):
        assert len(rows[mode]) == 6
    assert rows["all"][:4] == ["1.0000"] * 4
    assert "ndcg@10 by language" in result.stdout
    assert "answers to 5 questions, 4 of them answerable" in result.stdout
    assert "refusal_f1" in result.stdout

    told = json.loads(Path("out/run.json").read_text(encoding="utf-8"))
    assert (told["schema"], told["complete"], told["data"]["questions"]) == ("m3rag.eval/1", True, 5)
    assert (told["model"]["name"], told["chunks"], told["skipped"]) == ("mini", 6, [])
    assert told["per_query"]["all"]["ndcg@10"] == dict.fromkeys(["q0", "q1", "q2", "q3"], 1.0)
    assert told["systems"]["all"]["languages"]["de"]["hit@1"] == 1.0
    assert told["answers"]["citation_recall"] > 0.5
    assert Path("out/all.trec").read_text(encoding="utf-8").startswith("q0 Q0 0.txt 1 ")
    assert len(Path("out/answers.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_json_is_one_object_and_repeats(index: Path) -> None:
    command = (questions(), "-i", index, "--modes", "dense,all", "--metric", "map@10", "--metric", "hit@5")
    found, again = run_json(*command), run_json(*command)
    assert found["schema"] == "m3rag.eval/1"
    assert list(found["systems"]) == ["dense", "all"]
    assert list(found["systems"]["all"]["metrics"]) == ["map@10", "hit@5"]
    assert "answers" not in found
    for told in (found, again):
        for of in told["systems"].values():
            assert 0 < of["latency_ms"]["p50"] <= of["latency_ms"]["p95"]
            del of["latency_ms"]
    assert found == again
    few = run_json(*command, "--sample", "2", "--seed", "1")
    assert few["data"]["questions"] == 2
    assert few["data"]["hash"] != found["data"]["hash"]


def test_a_corpus_is_encoded_once_and_long_passages_are_found(mini: M3Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    data = beir()
    first = run_json(data, "--cache", "cache", "--out", "first")
    assert first["systems"]["all"]["metrics"]["hit@1"] == 1.0, "also the end of what is longer than the model"
    assert first["chunks"] > 7
    assert first["index"] is None
    assert len(list(Path("cache").iterdir())) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("the passages are in the cache")

    monkeypatch.setattr(mini, "encode_documents", refuse)
    assert run_json(data, "--cache", "cache")["systems"]["all"]["metrics"] == first["systems"]["all"]["metrics"]
    monkeypatch.undo()
    assert not Path("m3rag-index").exists()


def test_a_file_of_questions_with_its_corpus(folder: Path) -> None:
    beir()
    told = [{"id": "a", "question": "Where do ducks swim?", "answers": ["ponds"], "gold_ids": ["0"]}]
    found = run_json(lines("one.jsonl", told), "--corpus", "beir/corpus.jsonl", "--answers", "--modes", "all")
    assert found["systems"]["all"]["metrics"]["hit@1"] == 1.0
    assert found["answers"]["holds"] == 1.0
    assert found["answers"]["citation_precision"] == 1.0


def test_the_papers_table() -> None:
    result = run(beir(), "--preset", "paper")
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.stdout.splitlines()[:6]]
    assert table[0] == ["ndcg@10", "recall@100", "p50", "ms", "p95", "ms"]
    assert [row[0] for row in table[1:]] == ["Dense", "Sparse", "Multi-vec", "D+S", "All"]
    found = run_json("beir", "--preset", "paper", "--weights", "mldr", "--fail-under", "ndcg@10=0.5")
    assert found["settings"]["candidates"] == 1000
    assert found["settings"]["rerank_depth"] == 200
    assert found["settings"]["weights"]["All"] == "mldr"
    plain = run_json("beir", "--modes", "colbert", "--metric", "ndcg@10")
    assert found["systems"]["Multi-vec"]["metrics"]["ndcg@10"] == plain["systems"]["colbert"]["metrics"]["ndcg@10"]


def test_depths_hold_whatever_the_cut_off() -> None:
    data = beir()
    command = (data, "--modes", "all,dense+lexical", "--metric", "recall@1000")
    few = run_json(*command, "--rerank-depth", "1", "--candidates", "1", "--out", "few")
    assert (few["settings"]["rerank_depth"], few["settings"]["candidates"]) == (1, 1)
    found = [line.split()[0] for line in Path("few/all.trec").read_text(encoding="utf-8").splitlines()]
    assert found == ["q0", "q1", "q2", "q3", "q4"], "one passage each"
    paper = run_json(data, "--preset", "paper", "--metric", "recall@1000", "--rerank-depth", "2", "--out", "paper")
    assert paper["settings"]["candidates"] == 1000
    count = {name: len(Path(f"paper/{name}.trec").read_text().splitlines()) for name in ("All", "Dense")}
    assert count["All"] <= 10 < count["Dense"]


def test_judgements_of_a_folder_may_be_missing_or_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    data = beir()
    with Path("beir/qrels/test.tsv").open("a") as rows:
        rows.write("\nq0\tgone\t1\n")
    assert "skip what is missing" in run(data, "--modes", "dense").stderr
    text = Path("beir/qrels/test.tsv").read_text().replace("q1\t1\t1", "q1\t1\t0").replace("q2\t2\t", "q2\tgone\t")
    Path("beir/qrels/test.tsv").write_text(text)
    found = run_json(data, "--modes", "dense", "--skip-missing")
    assert (list(found["per_query"]["dense"]["ndcg@10"]), found["skipped"]) == (["q0", "q3", "q4"], ["q2"])
    assert "1 queries are left out, since nothing is relevant to them" in caplog.text


def test_the_index_of_other_commands_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_INDEX", "of-other-commands")
    assert run(beir(), "--modes", "dense").exit_code == 0


def test_a_reranker_is_a_row_of_its_own(index: Path) -> None:
    found = run_json(questions(), "-i", index, "--modes", "dense,bm25", "--reranker", "colbert")
    assert list(found["systems"]) == ["dense", "bm25", "dense, reranked"]


def test_a_baseline_and_thresholds(index: Path) -> None:
    command = (questions(), "-i", index, "--modes", "lexical,all")
    assert run(*command, "--out", "base").exit_code == 0
    found = run_json(*command, "--baseline", "base")
    assert {(c["system"], c["metric"]) for c in found["change"]} >= {("all", "ndcg@10"), ("lexical", "hit@1")}
    assert all(c["mean"] == c["low"] == c["high"] == 0 and c["questions"] == 4 for c in found["change"])
    assert "95% interval of a paired bootstrap" in run(*command, "--baseline", "base/run.json").stdout
    Path("printed.json").write_text(json.dumps(found), encoding="utf-8")  # `m3rag eval --json > printed.json`
    assert run_json(*command, "--baseline", "printed.json")["change"] == found["change"]

    Path("elsewhere").mkdir()
    plain = [{"query": "Where do ducks swim?", "relevant": ["0.txt"]}]
    lines("plain.jsonl", plain)
    assert run("plain.jsonl", "-i", index, "--modes", "all", "--out", "without-ids").exit_code == 0
    moved = run_json(lines("elsewhere/p.jsonl", plain), "-i", index, "--modes", "all", "--baseline", "without-ids")
    assert {c["questions"] for c in moved["change"]} == {1}, "the same questions, wherever they lie"

    assert run(*command, "--fail-under", "ndcg@10=0.9").exit_code == 0
    result = run(*command, "--fail-under", "ndcg@10=0.9", "--fail-under", "all:mrr@10=1.1")
    assert result.exit_code == 1
    assert "all:mrr@10 is 1.0000, below 1.1" in result.stderr
    assert "recall@100" in result.stdout, "the figures are shown all the same"


def test_interrupted_it_leaves_what_is_done(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = searching._ask
    asked = []

    def ask_and_interrupt(*args: Any) -> Any:
        asked.append(args[1].id)
        if len(asked) == 4:  # the first is asked twice, to warm up
            signal.raise_signal(signal.SIGINT)
        return ask(*args)

    monkeypatch.setattr(searching, "_ask", ask_and_interrupt)
    result = run(questions(), "-i", index, "--modes", "all", "--out", "out")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "interrupted" in result.stderr
    told = json.loads(Path("out/run.json").read_text(encoding="utf-8"))
    assert told["complete"] is False
    assert list(told["per_query"]["all"]["ndcg@10"]) == ["q0", "q1"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.jsonl"], 2, "nowhere.jsonl is missing"),
        (["bad.jsonl"], 2, "bad.jsonl:1"),
        (["beir", "--split", "dev"], 2, "dev.tsv is missing"),
        (["beir", "--corpus", "beir/corpus.jsonl"], 2, "leave out --corpus"),
        (["qa.jsonl", "--metric", "ndcg"], 2, "unknown metric 'ndcg'"),
        (["qa.jsonl", "--fail-under", "ndcg@10"], 2, "is no threshold"),
        (["qa.jsonl", "--fail-under", "answers:f1=0.5"], 2, "no figure answers:f1"),
        (["qa.jsonl", "--baseline", "nowhere"], 2, "nowhere is missing"),
        (["qa.jsonl", "--preset", "paper"], 2, "needs a folder in BEIR's form"),
        (["qa.jsonl", "--cache", "cache"], 2, "--cache keeps encoded corpora"),
        (["qa.jsonl", "--chunk-tokens", "99"], 2, "--chunk-tokens is of a corpus that is encoded"),
        (["qa.jsonl", "--split", "dev"], 2, "--split is of a folder in BEIR's form, and qa.jsonl is a file"),
        (["beir", "-i", "i"], 2, "--index has no part where passages come with the questions"),
        (["no.jsonl", "--answers", "--fail-under", "ndcg@10=0.1"], 2, "no.jsonl says of no question what should be"),
        (["qa.jsonl", "--out", "qa.jsonl"], 2, "qa.jsonl is a file: give another folder"),
        (["qa.jsonl", "--candidates", "99999999999999999999"], 2, "2147483647"),
        (["deep.jsonl"], 2, "deep.jsonl:1"),
        (["missing.jsonl"], 2, "1 of 1 questions call something relevant that is not in the index"),
        (["labelled.jsonl", "--answers"], 2, "leave out --answers"),
        (["unlabelled.jsonl"], 2, "unlabelled.jsonl says of no question what should be found"),
        (["qa.jsonl", "--modes", "sparse"], 3, "unknown mode 'sparse'"),
        (["beir", "--chunk-tokens", "600"], 3, "chunk_tokens is 600"),
        (["qa.jsonl", "-i", "elsewhere"], 4, "m3rag ingest"),
        (["qa.jsonl", "--reranker", "nosuch"], 5, "nosuch"),
    ],
)
def test_exit_codes(index: Path, arguments: list[str], code: int, message: str) -> None:
    questions()
    beir()
    lines("bad.jsonl", [{"question": "q"}])
    Path("deep.jsonl").write_text("[" * 200_000)
    lines("missing.jsonl", [{"query": "q", "relevant": ["gone.txt"]}])
    lines("labelled.jsonl", [{"query": "q", "relevant": ["0.txt"]}])
    lines("unlabelled.jsonl", [{"id": "q", "question": "q", "answers": ["a"]}])
    lines("no.jsonl", [{"id": "no", "question": "Who painted it?", "answers": []}])
    result = run(*arguments, *([] if "-i" in arguments or "beir" in arguments else ["-i", index]))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--modes", "dense,foo"], 3, "unknown mode 'foo'"),
        (["--weights", "0/0/1"], 3, "mode 'dense+lexical' looks only at dense and lexical, of weight 0"),
        (["--reranker", "nosuch"], 5, "nosuch"),
        (["--fail-under", "foo@3=1"], 2, "no figure all:foo@3"),
        (["--answers"], 2, "leave out --answers"),
    ],
)
def test_what_cannot_be_measured_is_said_before_a_corpus_is_encoded(
    mini: M3Encoder, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    data = beir()

    def refuse(*_: object) -> None:
        raise AssertionError("the corpus is encoded")

    monkeypatch.setattr(mini, "encode_documents", refuse)
    result = run(data, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output


def test_weights_that_leave_out_a_leg_leave_its_own_row() -> None:
    found = run_json(beir(), "--weights", "1/0/1")["systems"]
    plain = run_json("beir")["systems"]
    for mode in ("dense", "lexical", "colbert", "bm25"):
        assert found[mode]["metrics"] == plain[mode]["metrics"]
    assert found["dense+lexical"]["metrics"] == plain["dense"]["metrics"]
    assert run("beir", "--preset", "paper", "--weights", "1/0/1").exit_code == 0


def test_a_corpus_is_reranked_by_the_vectors_of_its_index(mini: M3Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (beir(), "--cache", "cache", "--modes", "dense", "--reranker")
    assert run(*command, "none").exit_code == 0
    for _ in range(2):
        assert list(run_json(*command, "colbert")["systems"]) == ["dense", "dense, reranked"]

        def refuse(*_: object) -> None:
            raise AssertionError("the passages are in the index")

        monkeypatch.setattr(mini, "encode_documents", refuse)


def test_what_is_missing_may_be_skipped(index: Path) -> None:
    told = [{"query": "Where do ducks swim?", "relevant": ["0.txt"]}, {"query": "q", "relevant": ["gone.txt"]}]
    result = run(lines("some.jsonl", told), "-i", index, "--skip-missing", "--modes", "all")
    assert result.exit_code == 0, result.output
    assert "1 questions were left out" in result.stderr


@pytest.mark.parametrize("threshold", [(), ("--fail-under", "ndcg@10=0.5")])
def test_with_nothing_left_there_is_no_figure(index: Path, threshold: tuple[str, ...]) -> None:
    told = [{"query": "q", "relevant": ["gone.txt"]}]
    result = run(lines("gone.jsonl", told), "-i", index, "--skip-missing", "--modes", "all", *threshold)
    assert result.exit_code == 2
    assert "no question of gone.jsonl was left to search for" in result.stderr


@pytest.mark.parametrize(("metric", "depth"), [("ndcg@10", 1000), ("recall@500", 5000)])
def test_the_depths_told_are_those_of_the_search(metric: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []
    scored = Stages.scored

    def noted(self: Stages, *given: Any) -> Any:
        looked.append((self.candidates, self.rerank_depth))
        return scored(self, *given)

    monkeypatch.setattr(Stages, "scored", noted)
    found = run_json(beir(), "--modes", "all", "--metric", metric)
    told = found["settings"]["candidates"], found["settings"]["rerank_depth"]
    assert told == (depth, depth)
    assert set(looked[1:]) == {told}, "after the search that loads what is loaded on first use"


def test_figures_are_shown_and_written_even_where_the_rest_fails(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (questions(), "-i", index, "--modes")
    assert run(*command, "lexical", "--out", "base").exit_code == 0
    result = run(*command, "all", "--out", "out", "--baseline", "base")
    assert (result.exit_code, "no figure in common" in result.stderr) == (2, True)
    assert "recall@100" in result.stdout
    assert Path("out/run.json").is_file()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_replace", full)
    result = run(*command, "all", "--out", "full")
    assert (result.exit_code, "No space left" in result.stderr) == (2, True)
    assert "recall@100" in result.stdout


def test_learned_weights_are_those_of_a_search(index: Path) -> None:
    command = (questions(), "-i", index, "--modes", "dense,all")
    with KnowledgeBase(index) as kb:
        kb.store.update_settings({"weights": "0.2/1/0.1"})
    try:
        assert run_json(*command)["settings"]["weights"] == {"dense": "miracl", "all": "0.2/1/0.1"}
        assert run_json(*command, "--weights", "mldr")["settings"]["weights"] == {"dense": "mldr", "all": "mldr"}
    finally:
        with KnowledgeBase(index) as kb:
            kb.store.update_settings({"weights": None})
