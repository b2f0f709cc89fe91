"""Labelled data: real sets are read whole, and what is wrong is said with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.evaluation.datasets import load_beir, load_corpus, load_questions

CORPUS = [{"_id": "a", "title": "Ducks", "text": "They swim."}, {"_id": "b", "title": "", "text": "x\u2028y"}]
QUERIES = [{"_id": "q", "text": "Who swims?"}, {"_id": "unjudged", "text": "?"}]


def write(folder: Path, **files: str) -> Path:
    contents = {
        "corpus": "\n".join(json.dumps(record, ensure_ascii=False) for record in CORPUS),
        "queries": "\n".join(json.dumps(record) for record in QUERIES),
        "qrels": "query-id\tcorpus-id\tscore\nq\ta\t2\r\nq\tb\t0\n",
        **files,
    }
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text(contents["corpus"], encoding="utf-8")
    (folder / "queries.jsonl").write_text(contents["queries"], encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(contents["qrels"], encoding="utf-8")
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    found = load_beir(write(tmp_path / "birds"))
    assert found.name == "birds"
    assert found.corpus == {"a": "Ducks\nThey swim.", "b": "x\u2028y"}
    assert found.queries == {"q": "Who swims?"}
    assert found.qrels == {"q": {"a": 2, "b": 0}}
    assert load_beir(tmp_path / "birds", name="other").name == "other"


def test_gzipped_files_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    plain = load_beir(write(tmp_path), name="x")
    files = [tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels" / "test.tsv"]
    for file in files:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load_beir(tmp_path, name="x") == plain
    assert load_corpus(tmp_path / "corpus.jsonl.gz") == plain.corpus
    with pytest.raises(InputError, match=r"dev\.tsv is missing; the splits there are: test"):
        load_beir(tmp_path, split="dev")
    for damaged in (b"no gzip", gzip.compress(b"{}" * 9)[:-6], gzip.compress(b"{}" * 9)[:12] + b"\xff" * 20):
        (tmp_path / "corpus.jsonl.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"corpus\.jsonl cannot be read"):
            load_beir(tmp_path)


def test_a_file_without_a_header_is_read(tmp_path: Path) -> None:
    assert load_beir(write(tmp_path, qrels="q\ta\t1")).qrels == {"q": {"a": 1}}


def test_blank_lines_before_the_header_are_no_judgements(tmp_path: Path) -> None:
    qrels = "\n \nquery-id\tcorpus-id\tscore\n\nq\ta\t1\n"
    assert load_beir(write(tmp_path, qrels=qrels)).qrels == {"q": {"a": 1}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus": '{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}'}, r"corpus.jsonl:3: the _id 'a'.*twice"),
        ({"corpus": '{"_id": "a"}'}, r"corpus.jsonl:1: 'text' must be a string, got None"),
        ({"corpus": '{"_id": 3, "text": "x"}'}, r"corpus.jsonl:1: '_id' must be a string, got 3"),
        ({"corpus": '{"_id": "a", "text": "x", "title": 3}'}, r"corpus.jsonl:1: 'title' must be a string"),
        ({"queries": '{"_id": "q", "text": "x"}\n{"_id"'}, r"queries.jsonl:2: not JSON"),
        ({"queries": "[]"}, r"queries.jsonl:1: expected a JSON object, got list"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq a 1"}, r"test.tsv:2: expected query id.*'q a 1'"),
        ({"queries": '{"_id": "q", "text": " "}'}, r"test.tsv:2: the query 'q' is empty in queries.jsonl"),
        ({"qrels": "q\ta\t1\nq\ta\t1\nq\ta\t0"}, r"test.tsv:3: the passage 'a' is judged twice .* 1 and 0"),
        ({"qrels": "q\ta\t0.5"}, r"test.tsv:1: expected query id"),
        ({"corpus": '{"_id": "0", "text": "x"}', "qrels": "q\t0\ta\t1"}, r"test.tsv:1: expected query id"),
        ({"corpus": '{"_id": "0", "text": "x"}', "qrels": "q\t0\t5\t1"}, r"test.tsv:1: expected query id"),
        ({"qrels": "q\ta"}, r"test.tsv:1: expected query id"),
        ({"qrels": "q\ta\t1\nr\ta\t1"}, r"test.tsv:2: the query 'r' is not in queries.jsonl"),
        ({"qrels": "q\tc\t1"}, r"test.tsv:1: the passage 'c' is not in corpus.jsonl: add it, remove"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, r"test.tsv: there are no judgements"),
        ({"qrels": "q\ta\t0\nq\tb\t-1"}, r"test.tsv: no passage is judged relevant"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_beir(write(tmp_path, **files))


def test_queries_of_nothing_relevant_are_left_out_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queries = '{"_id": "q", "text": "Who swims?"}\n{"_id": "r", "text": "Who flies?"}'
    found = load_beir(write(tmp_path, queries=queries, qrels="q\ta\t1\nq\tb\t0\nr\ta\t0"))
    assert (found.queries, found.qrels) == ({"q": "Who swims?"}, {"q": {"a": 1, "b": 0}})
    assert "test.tsv: 1 queries are left out, since nothing is relevant to them" in caplog.text


def test_judgements_of_passages_that_are_not_there_are_taken_if_told_so(tmp_path: Path) -> None:
    assert load_beir(write(tmp_path, qrels="q\ta\t1\nq\tgone\t2"), absent=True).qrels == {"q": {"a": 1, "gone": 2}}


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.jsonl is missing"):
        load_beir(tmp_path)
    with pytest.raises(InputError, match=r"dev\.tsv is missing"):
        load_beir(write(tmp_path), split="dev")
    (tmp_path / "queries.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"queries\.jsonl cannot be read as UTF-8"):
        load_beir(tmp_path)


def question(**fields: Any) -> str:
    return json.dumps({"id": "1", "question": "Who?", "answers": ["ducks"], **fields})


def test_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text(
        question(gold_ids=["a"], lang="en") + "\n" + question(id="2", answers=[], answerable=False), encoding="utf-8"
    )
    first, second = load_questions(path)
    assert (first.answers, first.gold_ids, first.lang, first.answerable) == (("ducks",), ("a",), "en", True)
    assert (second.answers, second.gold_ids, second.lang, second.answerable) == ((), (), "", False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (question(answers="ducks"), r"qa.jsonl:2: 'answers' must be a list of strings"),
        (question(gold_ids=[1]), r"qa.jsonl:2: 'gold_ids' must be"),
        (question(id=7), r"qa.jsonl:2: 'id' must be a string, got 7"),
        (question(lang=None), r"qa.jsonl:2: 'lang' must be a string"),
        (question(answerable=False), r"qa.jsonl:2: 'answerable' is False with 1 answers"),
        (question(answers=[], answerable=True), r"qa.jsonl:2: 'answerable' is True with 0 answers"),
        (question(answerable=1), r"qa.jsonl:2: 'answerable' is 1"),
        (question(id="0"), r"qa.jsonl:2: the id '0' is there twice"),
    ],
)
def test_malformed_questions_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "qa.jsonl").write_text(f"{question(id='0')}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_questions(tmp_path / "qa.jsonl")


def test_every_real_set_is_read(shared_data: Path) -> None:
    sizes = {}
    for path in sorted(shared_data.glob("retrieval/**/qrels/test.tsv")):
        found = load_beir(path.parents[1])
        sizes[str(path.parents[1].relative_to(shared_data / "retrieval"))] = (len(found.corpus), len(found.queries))
    assert sizes["xquad/mono/en"] == sizes["xquad/to-en/zh"] == (240, 1190)
    assert sizes["scifact"] == (5183, 300)
    assert sizes["kazqad-val"] == (697, 545)
    assert len(sizes) == 16


def test_every_real_question_is_read(shared_data: Path) -> None:
    assert {len(load_questions(path)) for path in (shared_data / "rag" / "xquad").glob("*.jsonl")} == {1190}
    squad = load_questions(shared_data / "rag" / "squad-v2.0-dev" / "en.jsonl")
    unanswerable = [question for question in squad if not question.answerable]
    assert 0 < len(unanswerable) < len(squad)
    assert all(not question.answers for question in unanswerable)
