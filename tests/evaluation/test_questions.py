"""Questions from every form of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.evaluation import RetrievalSet
from m3rag.evaluation.datasets import load_beir, load_corpus
from m3rag.evaluation.labelled import Relevant
from m3rag.evaluation.questions import EvalQuestion, languages, load_eval_questions, questions_of


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


def test_both_forms_in_one_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        [
            {"id": "a", "question": "Wo schwimmen Enten?", "answers": ["Teich"], "gold_ids": ["d", "d"], "lang": "de"},
            {"id": "b", "question": "Who is it?", "answers": [], "gold_ids": ["d"], "answerable": False},
            {"query": "ducks", "relevant": [{"id": "d", "page": 2, "gain": 3}], "lang": "en"},
        ],
    )
    found = load_eval_questions(path)
    assert found[0] == EvalQuestion("a", "Wo schwimmen Enten?", (Relevant("d"),), ("Teich",), "de")
    assert found[1] == EvalQuestion("b", "Who is it?", (), (), ""), "nothing answers it, whatever looks like it"
    assert found[2].id == "line-3", "and no path, so that a run elsewhere can be compared"
    assert (found[2].relevant, found[2].answers, found[2].lang) == ((Relevant("d", 2, 3),), None, "en")
    assert languages(found) == ["de", "en"]
    assert found[2].labelled.query == "ducks"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no question"),
        ([{"id": "a", "question": " ", "answers": []}], "1: the question is empty"),
        ([{"id": "a", "question": "x", "answers": []}] * 2, "2: the id 'a' is there twice"),
        ([{"query": "x", "relevant": []}], "1: 'relevant' must be a list"),
        ([{"query": "x", "relevant": ["d"], "lang": 1}], "1: 'lang' must be a string"),
        ([{"text": "x"}], "1: 'query' must be a string"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_eval_questions(write(tmp_path / "q.jsonl", records))


def test_a_folder_in_beirs_form_with_languages(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    write(tmp_path / "corpus.jsonl", [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "text": "y"}])
    queries = [{"_id": "q", "text": "u", "lang": "kk"}, {"_id": "r", "text": "v"}, {"_id": "s", "text": "w", "lang": 3}]
    write(tmp_path / "queries.jsonl", queries)
    (tmp_path / "qrels" / "test.tsv").write_text("q\t1\t2\nq\t2\t0\nr\t2\t1\n")
    dataset = load_beir(tmp_path)
    assert dict(dataset.langs) == {"q": "kk"}
    assert load_corpus(tmp_path / "corpus.jsonl") == {"1": "T\nx", "2": "y"}
    assert questions_of(dataset) == [
        EvalQuestion("q", "u", (Relevant("1", gain=2),), lang="kk"),
        EvalQuestion("r", "v", (Relevant("2"),)),
    ]
    assert RetrievalSet("n", {}, {}, {}).langs == {}


def test_the_shared_questions_are_read(shared_data: Path) -> None:
    squad = load_eval_questions(shared_data / "rag" / "squad-v2.0-dev" / "en.jsonl")
    unanswerable = [question for question in squad if question.answers == ()]
    assert len(squad) > 11_000
    assert 0.4 < len(unanswerable) / len(squad) < 0.6
    assert not any(question.relevant for question in unanswerable)
    assert languages(squad) == ["en"]
