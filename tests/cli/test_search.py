"""What `m3rag search` says where there are no hits, and its options, on the real `mini`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of two documents, of two chunks and of one."""
    root = tmp_path_factory.mktemp("search")
    (root / ".git").mkdir()
    papers = root / "papers"
    papers.mkdir()
    (papers / "ducks.md").write_text(
        "# Swimming\n\n" + "Ducks swim on ponds. " * 60 + "\n\n# Food\n\nDucks eat grass.\n"
    )
    (papers / "zebra.txt").write_text("The zebra has stripes.\n")
    result = CliRunner().invoke(app, ["ingest", str(papers), "-i", str(root / "i")])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["search", *arguments, "-i", "i"])


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_no_hit_tells_its_reason_to_people_and_programs() -> None:
    for arguments, reason, message in (
        (["ducks", "-f", "lang=fr", "-f", "document_id=zebra.txt"], "filter", "no chunk passes lang=fr"),
        (["鸭", "--mode", "lexical"], "nothing shared", "shares a token with the question; try --mode all"),
        (["ducks", "--min-score", "5"], "score threshold", "below the threshold 5; lower it"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.startswith("no hit: ")
        assert message in result.stderr
        found = run_json(*arguments)
        assert found["hits"] == []
        assert found["no_hits"]["reason"] == reason
        assert message in found["no_hits"]["message"]
    assert "no_hits" not in run_json("ducks")


def test_every_hit_tells_its_scores_and_who_found_it() -> None:
    (first, *_) = run_json("What do ducks eat?")["hits"]
    assert first["found_by"] == ["dense", "lexical"]
    assert first["scores"].keys() == {"dense", "lexical", "colbert", "bm25", "rerank"}
    assert first["ranks"]["dense"] >= 1
    (word, *_) = run_json("stripes", "--mode", "bm25")["hits"]
    assert (word["document_id"], word["found_by"]) == ("zebra.txt", ["bm25"])
    assert word["score"] == word["scores"]["bm25"]


def test_options_change_the_hits() -> None:
    several = [hit["document_id"] for hit in run_json("ducks")["hits"]]
    assert several.count("ducks.md") >= 2
    one = [hit["document_id"] for hit in run_json("ducks", "--per-document", "1")["hits"]]
    assert sorted(one) == ["ducks.md", "zebra.txt"]
    scores = [hit["score"] for hit in run_json("ducks", "--alpha", "1", "--mode", "dense+lexical")["hits"]]
    assert (scores[0], scores[-1]) == (1, 0)
    assert run("ducks", "--diversity", "2").exit_code == 2
    assert run("ducks", "--alpha", "0.5", "--weights", "mldr", "--mode", "dense+lexical").exit_code == 3
    assert "dense+lexical" in run("ducks", "--alpha", "0.5").stderr


def test_the_words_that_matched_are_whole_and_stand_where_they_are_said_to() -> None:
    (first, *_) = run_json("Swimming ducks", "--explain")["hits"]
    assert {word["text"].casefold() for word in first["words"]} >= {"ducks"}
    for word in first["words"]:
        assert first["text"][word["start"] : word["end"]] in ("", word["text"])
    total = sum(word["contribution"] for word in first["words"])
    assert total == pytest.approx(first["scores"]["lexical"], abs=2e-3)
    assert "words" not in run_json("Swimming ducks")["hits"][0]
    table = run("Swimming ducks", "--explain").stdout
    assert "top words" in table
    assert "ducks" in table.casefold()


def test_a_reranker_orders_the_hits_and_shows_its_score() -> None:
    hits = run_json("What do ducks eat?", "--reranker", "colbert")["hits"]
    assert [hit["score"] for hit in hits] == [hit["scores"]["rerank"] for hit in hits]
    assert "reranked" in run("What do ducks eat?", "--reranker", "colbert", "--explain").stdout
    assert run("ducks", "--reranker", "nonsense").exit_code == 5
