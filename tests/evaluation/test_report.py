"""Reports: figures, files that trec_eval reads, and what comes back from them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import InputError
from m3rag.evaluation.comparing import differences
from m3rag.evaluation.judging import JudgedAnswer
from m3rag.evaluation.metrics import aggregate
from m3rag.evaluation.questions import EvalQuestion
from m3rag.evaluation.report import (
    Report,
    file_name,
    latency,
    load_report,
    require_writable,
    trec_qrels,
    trec_run,
    versions,
)
from m3rag.evaluation.searching import SearchRun

RUN = SearchRun(
    qrels={"q 1": {"a": 1}, "q2": {"a b": 2}, "q3": {"c": 1}},
    runs={
        "all": {"q 1": {"a": 3.0, "b": 1.0}, "q2": {"a": 2.0, "a b": 1.0}, "q3": {}},
        "all, reranked": {"q 1": {"b": 3.0, "a": 1.0}, "q2": {"a b": 1.0}, "q3": {"c": 0.5}},
    },
    seconds={"all": {"q 1": 0.1, "q2": 0.2, "q3": 0.3}, "all, reranked": {"q 1": 1.0, "q2": 1.0, "q3": 1.0}},
)
QUESTIONS = [
    EvalQuestion("q 1", "?", (), lang="en"),
    EvalQuestion("q2", "?", (), lang="de"),
    EvalQuestion("q3", "?", ()),
]
JUDGED = [
    JudgedAnswer("q 1", True, True, "x", 1.0, 1.0, True, 1, 1, 0.5),
    JudgedAnswer("q2", False, False, "", 1.0, 1.0, False, 0, None, 0.7),
]
CONTEXT = {"data": {"hash": "h", "path": "p"}, "versions": {"m3rag": "1"}}


def report(*, answers: bool = True) -> Report:
    judged = JUDGED if answers else None
    return Report.of(RUN, judged, QUESTIONS, metrics=["ndcg@10", "hit@1"], context=CONTEXT)


def test_figures_by_system_and_language() -> None:
    found = report()
    of_all = found.systems["all"]
    assert of_all["metrics"]["hit@1"] == pytest.approx(1 / 3)
    assert {lang: of["hit@1"] for lang, of in of_all["languages"].items()} == {"de": 0.0, "en": 1.0}
    assert of_all["latency_ms"] == {"p50": 200.0, "p95": 290.0}
    assert found.per_query["all"]["hit@1"] == {"q 1": 1.0, "q2": 0.0, "q3": 0.0}
    assert found.answers is not None
    assert (found.answers["f1"], found.answers["languages"]["de"]["refusal_f1"]) == (1.0, 1.0)
    assert found.per_query["answers"]["f1_all"] == {"q 1": 1.0, "q2": 1.0}
    assert report(answers=False).as_dict().keys() == {"complete", "data", "versions", "systems", "per_query"}
    assert latency([]) == {}


def test_of_no_questions_there_are_no_figures() -> None:
    found = Report.of(SearchRun(runs={"all": {}}, seconds={"all": {}}), [], [], metrics=["ndcg@10"], context={})
    assert (found.systems, found.per_query["answers"]["f1"]) == ({}, {})
    with pytest.raises(InputError, match="unknown metric"):
        Report.of(RUN, None, QUESTIONS, metrics=["ndcg"], context={})


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    found = report()
    found.write(tmp_path / "deep" / "out", RUN, JUDGED)
    folder = tmp_path / "deep" / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "all.trec",
        "all__reranked.trec",
        "answers.jsonl",
        "qrels.txt",
        "run.json",
    ]
    assert load_report(folder) == load_report(folder / "run.json") == found
    lines = (folder / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["q 1", "q2"]
    found.write(folder, RUN, None)
    assert load_report(folder) == found


def test_what_the_run_before_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    report().write(tmp_path, RUN, JUDGED)
    (tmp_path / "of-another-tool.trec").write_text("")
    alone = SearchRun(RUN.qrels, {"all": RUN.runs["all"]}, {"all": RUN.seconds["all"]})
    found = Report.of(alone, None, QUESTIONS, metrics=["hit@1"], context=CONTEXT)
    found.write(tmp_path, alone, None)
    assert {path.name for path in tmp_path.iterdir()} == {"all.trec", "of-another-tool.trec", "qrels.txt", "run.json"}
    assert load_report(tmp_path) == found


def test_an_id_that_is_no_unicode_is_written_as_json_writes_it(tmp_path: Path) -> None:
    run = SearchRun(qrels={"\ud800": {"a": 1}}, runs={"all": {"\ud800": {"a": 1.0}}}, seconds={"all": {"\ud800": 0.1}})
    found = Report.of(run, None, [EvalQuestion("\ud800", "?", ())], metrics=["hit@1"], context=CONTEXT)
    found.write(tmp_path, run, None)
    assert (tmp_path / "all.trec").read_text() == "\\ud800 Q0 a 1 1.0 all\n"
    assert load_report(tmp_path).per_query["all"]["hit@1"] == {"\ud800": 1.0}


names = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable() or text.isspace())
scores = st.floats(-1e6, 1e6, width=32)


@given(st.dictionaries(names, st.dictionaries(names, scores, min_size=1), min_size=1), st.integers(1, 3))
def test_trec_files_give_the_same_figures(run: dict[str, dict[str, float]], gain: int) -> None:
    qrels = {query: {min(units): gain, "unseen": 1} for query, units in run.items()}
    read_run = list(ir_measures.read_trec_run(trec_run(run, "all, reranked")))
    read_qrels = list(ir_measures.read_trec_qrels(trec_qrels(qrels)))
    assert len(read_run) == sum(map(len, run.values()))
    assert len(read_qrels) == sum(map(len, qrels.values()))
    # Encoding an id may change where it stands among others of its score, so no two may tie here.
    if all(len(set(units.values())) == len(units) for units in run.values()):
        theirs = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.AP @ 10], read_qrels, read_run)
        ours = aggregate(run, qrels, ["ndcg@10", "map@10"])
        assert sorted(ours.values()) == pytest.approx(sorted(theirs.values()), abs=1e-9)


def test_names_of_files_suit_any_machine() -> None:
    assert file_name("dense+lexical") == "dense+lexical"
    assert file_name('a/b\\c:"é"') == "a_b_c____"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing"),
        ("{", r"as JSON.*measure that run again"),
        ("[" * 200_000, r"as JSON.*measure that run again"),
        ("[]", "no report"),
        ('{"schema": "m3rag.eval/9"}', "no report"),
        (
            '{"schema": "m3rag.eval/1"}',
            r"run\.json is no whole report \(complete, systems, per_query .*: give",
        ),
    ],
)
def test_what_is_no_report_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_report(tmp_path)


@pytest.mark.parametrize("name", ["complete", "systems", "per_query", "data", "answers"])
@pytest.mark.parametrize("value", [None, [], 1, {"all": 1}, {"all": {"ndcg@10": None}}, {"all": {"metrics": {"a": 1}}}])
def test_a_report_that_is_not_whole_is_said_or_read(tmp_path: Path, name: str, value: object) -> None:
    whole = {"schema": "m3rag.eval/1", **report().as_dict(), "change": [{"system": "all"}]}
    (tmp_path / "run.json").write_text(json.dumps(whole), encoding="utf-8-sig")
    assert load_report(tmp_path) == report()
    (tmp_path / "run.json").write_text(json.dumps({**whole, name: value}))
    try:
        found = load_report(tmp_path)
    except InputError as error:
        if f"({name} missing or malformed)" not in str(error):
            raise
    else:
        with contextlib.suppress(InputError):
            differences(report(), found)


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for name in ("file", "file/out"):
        with pytest.raises(InputError, match="file is a file: give another folder"):
            require_writable(tmp_path / name)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path)  # the tests may run as root
    with pytest.raises(InputError, match="you may not write in"):
        require_writable(tmp_path / "out")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another folder"):
        report().write(tmp_path / "file" / "out", RUN, None)


def test_versions_name_what_figures_depend_on() -> None:
    assert {"m3rag", "python", "numpy"} <= versions().keys()
