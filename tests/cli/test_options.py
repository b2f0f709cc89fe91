from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from m3rag.cli.app import app
from m3rag.cli.options import parse_filters


def test_values_of_one_key_are_alternatives() -> None:
    assert parse_filters(["lang=fr", "lang=de", "path=a=b"]) == {"lang": ["fr", "de"], "path": ["a=b"]}
    assert parse_filters(None) == {}
    assert parse_filters(["document_id=2020"]) == {"document_id": ["2020"]}


@pytest.mark.parametrize(
    ("typed", "read"),
    [("2020", 2020), ("-1.5", -1.5), ("true", True), ("false", False), ("0", 0)],
)
def test_numbers_and_truth_values_are_allowed_in_both_forms(typed: str, read: object) -> None:
    assert parse_filters([f"key={typed}"]) == {"key": [typed, read]}


@pytest.mark.parametrize("typed", ["", "NaN", "Infinity", "007", "1e999", "null", "True", "[1]", '"a"'])
def test_all_else_is_text(typed: str) -> None:
    assert parse_filters([f"key={typed}"]) == {"key": [typed]}


@pytest.mark.parametrize("pair", ["lang", "=fr"])
def test_what_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not KEY=VALUE"):
        parse_filters([pair])


@pytest.mark.parametrize("pair", ["year>=2001", "year<=2001", "lang!=de", 'year={"$gte": 2001}'])
def test_a_comparison_is_refused_instead_of_finding_nothing(pair: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"compares, --filter takes KEY=VALUE alone: .*\$gte"):
        parse_filters([pair])


@pytest.mark.parametrize(
    "typed",
    [
        ["ingest", "a.md", ""],
        ["train", "", "--out", "x"],
        ["mine", "", "--out", "x"],
        ["encode", "", "--out", "x"],
        ["serve", "--data", ""],
        ["eval", ""],
        ["tune", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(typed: list[str]) -> None:
    result = CliRunner().invoke(app, typed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the path is empty" in result.stderr


def test_an_empty_index_is_not_the_current_folder() -> None:
    result = CliRunner().invoke(app, ["demo", "-i", ""])
    assert (result.exit_code, "the index is empty" in result.stderr) == (3, True)
