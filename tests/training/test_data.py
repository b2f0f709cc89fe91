from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.training.data import Example, load_examples, read_examples, without_answers

GOOD = {"query": "q", "pos": ["p"], "neg": ["n"]}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_all_that_a_line_may_have(tmp_path: Path) -> None:
    file = written(
        tmp_path / "ja.jsonl",
        {"query": "鴨?", "pos": ["a", " "], "neg": ["b", "c", ""], "pos_scores": [3, 0], "neg_scores": [1, -2.5, 0]},
        "",
        {"query": "q", "pos": ["p"], "prompt": "Find:", "type": "normal", "answers": ["x"]},
    )
    first, second = read_examples(file)
    assert (first.query, first.positives, first.negatives, first.source) == ("鴨?", ("a",), ("b", "c"), "ja")
    assert (first.positive_scores, first.negative_scores, first.has_teacher) == ((3.0,), (1.0, -2.5), True)
    assert (second.negatives, second.answers, second.has_teacher) == ((), ("x",), False)
    assert next(read_examples(file, negatives=1)).negative_scores == (1.0,)


def test_a_byte_order_mark_and_blank_questions_are_no_trouble(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [GOOD, {**GOOD, "query": "  "}, {**GOOD, "pos": [""]}]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, rows)).encode())
    assert [e.query for e in load_examples(file)] == ["q"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "Expecting"),
        ("[]", "a list instead of an object"),
        ({"pos": ["p"]}, "there is no 'query'"),
        ({"query": 1, "pos": ["p"]}, "query is not a string"),
        ({"query": "q", "pos": "p"}, "pos is not a list of strings"),
        ({"query": "q", "pos": ["p"], "neg": [None]}, "neg is not a list of strings"),
        ({**GOOD, "pos_scores": [1.0, 2.0], "neg_scores": [0.0]}, "one finite number for each of pos"),
        ({**GOOD, "pos_scores": [1.0], "neg_scores": [True]}, "one finite number for each of neg"),
        ({**GOOD, "pos_scores": [float("nan")], "neg_scores": [0.0]}, "one finite number for each of pos"),
        ({**GOOD, "pos_scores": [1.0]}, "both or neither"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, told: str) -> None:
    file = written(tmp_path / "bad.jsonl", GOOD, line)
    with pytest.raises(InputError, match=rf"bad\.jsonl:2: .*{told}"):
        load_examples(file)


def test_a_line_nested_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").write_text('{"query": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match=r"deep\.jsonl:1: .*recursion"):
        load_examples(tmp_path / "deep.jsonl")


def test_a_number_too_large_for_a_float_is_named(tmp_path: Path) -> None:
    (tmp_path / "large.jsonl").write_text('{"query": "q", "pos": ["p"], "pos_scores": [' + "9" * 400 + "]}")
    with pytest.raises(InputError, match=r"large\.jsonl:1: .*too large"):
        load_examples(str(tmp_path / "large.jsonl"))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"query": "caf\xe9", "pos": ["p"]}\n')
    with pytest.raises(InputError, match=r"latin\.jsonl:1: .*utf-8"):
        load_examples(file)


def test_the_same_number_of_each_source_drawn_by_the_seed(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 5)):
        written(tmp_path / f"{name}.jsonl", *({**GOOD, "query": f"{name}{i}"} for i in range(count)))
    drawn = load_examples(tmp_path, per_source=10, seed=1)
    assert [e.source for e in drawn] == ["a"] * 10 + ["b"] * 5
    assert drawn == load_examples(tmp_path, per_source=10, seed=1)
    assert drawn != load_examples(tmp_path, per_source=10, seed=2)
    assert len(load_examples(tmp_path)) == 35


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl", written(tmp_path / "empty.jsonl")):
        with pytest.raises(InputError, match=r"holds no"):
            load_examples(path)


def test_gzipped_files_are_read_under_their_plain_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plain = written(tmp_path / f"{name}.jsonl", {**GOOD, "query": name})
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(json.dumps({**GOOD, "query": "other"}).encode()))
    plain.unlink()
    (tmp_path / "c.jsonl").mkdir()
    assert [(e.query, e.source) for e in load_examples(tmp_path)] == [("a", "a"), ("other", "b")]
    assert load_examples(tmp_path / "b.jsonl.gz")[0].source == "b"
    for damaged in (b"no gzip", gzip.compress(b"{}" * 9)[:-6]):
        (tmp_path / "b.jsonl.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"b\.jsonl\.gz(:1: not| cannot be read)"):
            load_examples(tmp_path)


def test_what_answers_in_any_row_of_a_question_is_no_negative() -> None:
    rows = [
        Example("q", ("a",), ("b", "x"), "s", (3.0,), (2.0, 1.0)),
        Example("q", ("b",), ("x",), "s"),
        Example("q", ("c",), ("a", "c"), "of another source"),
    ]
    first, second, third = without_answers(iter(rows))
    assert (first.negatives, first.negative_scores, second) == (("x",), (1.0,), rows[1])
    assert third.negatives == ("a",)
    assert rows[0].negatives == ("b", "x")
