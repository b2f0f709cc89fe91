"""The commands on the real `mini`, on files on disk, as a user would type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.cli.rebuild import _are_one
from m3rag.knowledge_base import KnowledgeBase
from m3rag.store.place import place_of
from m3rag.testing.llm_server import LLMServer

ENTEN = """\
# Enten

Enten sind Wasservögel und leben an Teichen und Flüssen. Enten fressen Gras, Würmer und kleine Fische.
Im Winter ziehen viele nach Süden. Ihre Federn sind wasserdicht. Die Küken schlüpfen nach vier Wochen.
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def files(folder: Path) -> Path:
    papers = folder / "papers"
    papers.mkdir()
    (papers / "enten.md").write_text(ENTEN, encoding="utf-8")
    (papers / "zebra.txt").write_text("The zebra has stripes to confuse biting flies.\n", encoding="utf-8")
    return papers


@pytest.fixture
def index(files: Path) -> Path:
    assert run("ingest", str(files), "-i", "i").exit_code == 0
    return Path("i")


def test_the_whole_way(files: Path) -> None:
    result = run("ingest", "papers", "-i", "i")
    assert result.exit_code == 0
    assert "added" in result.stdout
    assert "enten.md" in result.stdout
    assert "2 added" in result.stderr
    assert "unchanged" in run("ingest", "papers", "-i", "i").stdout

    found = run_json("search", "What do ducks eat?", "-i", "i", "--explain")
    assert found["schema"] == "m3rag.search/1"
    first = found["hits"][0]
    assert first["document_id"] == "enten.md"
    assert all(isinstance(first["scores"][leg], float) for leg in ("dense", "lexical", "colbert"))
    assert all(first["ranks"][leg] >= 1 for leg in ("dense", "lexical", "colbert"))

    answer = run_json("ask", "Was fressen Enten?", "-i", "i")
    assert answer["answered"]
    citation = answer["citations"][0]
    text = (files / "enten.md").read_text(encoding="utf-8")
    assert citation["quote"] == "Enten fressen Gras, Würmer und kleine Fische."
    assert text[citation["start"] : citation["end"]] == citation["quote"]

    assert [d["id"] for d in run_json("list", "-i", "i")["documents"]] == ["enten.md", "zebra.txt"]
    info = run_json("info", "-i", "i")
    assert (info["model"], info["documents"], info["chunks"]) == ("mini", 2, 2)
    assert info["bytes_per_chunk"] > 0

    refused = run_json("ask", "What is the capital of Mongolia?", "-i", "i")
    assert (refused["answered"], refused["citations"]) == (False, [])

    assert run_json("rm", "zebra.txt", "-i", "i")["removed"] == 1
    assert [d["id"] for d in run_json("list", "-i", "i")["documents"]] == ["enten.md"]


def test_what_a_person_sees(index: Path) -> None:
    table = run("search", "stripes", "-i", "i", "--explain").stdout
    header, first = table.splitlines()[:2]
    for name in ("document:page", "fused", "dense (rank)", "lexical (rank)", "colbert (rank)", "top words"):
        assert name in header
    assert "zebra.txt" in first
    assert "zebra.txt" in run("search", "stripes", "-i", "i").stdout
    answer = run("ask", "Why does the zebra have stripes?", "-i", "i").stdout
    assert answer.startswith("The zebra has stripes to confuse biting flies. [1]")
    assert "[1] zebra.txt, characters 0-46" in answer
    assert "mini" in run("info", "-i", "i").stdout


def test_explaining_never_changes_the_ranking(index: Path) -> None:
    plain = run_json("search", "animals", "-i", "i")["hits"]
    explained = run_json("search", "animals", "-i", "i", "--explain")["hits"]
    assert [(h["chunk_id"], h["score"]) for h in plain] == [(h["chunk_id"], h["score"]) for h in explained]


def test_no_hit_says_why(index: Path) -> None:
    result = run("search", "ducks", "-i", "i", "--filter", "lang=fr")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "0 of 2 chunks pass the filter lang=fr" in result.stderr
    result = run("search", "ກຂຄ", "-i", "i", "--mode", "lexical")
    assert result.exit_code == 0
    assert "shares a token" in result.stderr
    assert run("rm", "zebra.txt", "enten.md", "-i", "i").exit_code == 0
    assert "the index is empty" in run("search", "ducks", "-i", "i").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "", "-i", "i"], 2, "empty"),
        (["ask", "  ", "-i", "i"], 2, "empty"),
        (["ingest", "nowhere", "-i", "i"], 2, "no such file"),
        (["ingest", "hollow", "-i", "i"], 2, "no file to read"),
        (["rm", "nothing.md", "-i", "i"], 2, "m3rag list"),
        (["search", "ducks", "-i", "i", "--filter", "lang"], 2, "KEY=VALUE"),
        (["search", "ducks", "-i", "i", "--fusion", "magic"], 2, "magic"),
        (["nonsense"], 2, "nonsense"),
        (["search", "ducks", "-i", "i", "--mode", "magic"], 3, "dense+lexical"),
        (["search", "ducks", "-i", "i", "--weights", "1/2"], 3, "1/0.3/1"),
        (["search", "ducks", "-i", "other"], 4, "m3rag ingest"),
        (["search", "ducks", "-i", "i", "--model", "TINY"], 4, "m3rag rebuild"),
        (["ingest", "papers", "-i", "new", "--model", "nosuch"], 5, "mini"),
    ],
)
def test_exit_codes(index: Path, tiny_checkpoint: Path, arguments: list[str], code: int, message: str) -> None:
    Path("hollow").mkdir()
    before = run_json("list", "-i", "i")
    result = run(*[str(tiny_checkpoint) if a == "TINY" else a for a in arguments])
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert run_json("list", "-i", "i") == before


def test_a_bad_file_is_told_and_the_exit_code_says_so(files: Path) -> None:
    (files / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    result = run("ingest", "papers", "-i", "i")
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "broken.pdf" in result.stdout
    assert len(run_json("list", "-i", "i")["documents"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not Unicode")
@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]])
def test_a_name_that_is_not_unicode_can_be_shown(files: Path, more: list[str]) -> None:
    Path(os.fsdecode(os.fsencode(files) + b"/a\xff.txt")).write_text("Ducks.")
    result = run("ingest", "papers", "-i", "i", *more)
    assert result.exit_code == 1
    assert "a\\udcff.txt" in result.output
    assert len(run_json("list", "-i", "i")["documents"]) == 2


def test_bad_settings_are_exit_code_3(index: Path) -> None:
    Path("m3rag.toml").write_text("topk = 3\n")
    result = run("search", "ducks", "-i", "i")
    assert result.exit_code == 3
    assert "did you mean top_k" in result.stderr


@pytest.mark.parametrize(("given", "code"), [([], 3), (["-k", "2"], 0), (["-k", "none"], 2)])
def test_a_bad_variable_is_exit_code_3_unless_an_option_takes_its_place(
    index: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], code: int
) -> None:
    monkeypatch.setenv("M3RAG_TOP_K", "none")
    result = run("search", "ducks", "-i", "i", *given)
    assert result.exit_code == code, result.stderr
    assert ("M3RAG_TOP_K" in result.stderr) == (code > 0)


def test_a_locked_index_is_exit_code_4(index: Path) -> None:
    with KnowledgeBase(index) as held:
        assert held.documents()
        command = [sys.executable, "-m", "m3rag", "search", "ducks", "-i", "i"]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert other.returncode == 4
        assert "another process" in other.stderr
        assert run("search", "ducks", "-i", "i").exit_code == 0, "one process shares what it has open"


def test_debug_shows_the_traceback(folder: Path) -> None:
    result = run("search", "ducks", "-i", "other", "--debug")
    assert type(result.exception).__name__ == "IndexMissingError"


def test_an_answer_by_a_language_model(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLMServer(["Ducks eat grass [1] and moons [7]."]) as server:
        monkeypatch.setenv("M3RAG_LLM__MODEL", "served")
        monkeypatch.setenv("M3RAG_LLM__BASE_URL", server.base_url)
        answer = run_json("ask", "What do ducks eat?", "-i", "i")
    assert answer["text"] == "Ducks eat grass [1] and moons."
    assert [c["document_id"] for c in answer["citations"]] == ["enten.md"]


def test_an_unreachable_language_model_is_exit_code_5(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_LLM__MODEL", "served")
    monkeypatch.setenv("M3RAG_LLM__BASE_URL", "http://127.0.0.1:9/v1")
    result = run("ask", "What do ducks eat?", "-i", "i")
    assert result.exit_code == 5
    assert "127.0.0.1:9" in result.stderr


def test_rebuild_with_another_model(index: Path, tiny_checkpoint: Path) -> None:
    assert run("rebuild", "-i", "i", "--model", str(tiny_checkpoint)).exit_code == 0
    assert run_json("info", "-i", "i")["model"] == str(tiny_checkpoint)
    assert len(run_json("search", "ducks", "-i", "i")["hits"]) == 2


def test_copied_to_another_store(index: Path) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    before = run_json("search", "ducks", "-i", "i")["hits"]
    found = run_json("rebuild", "-i", "i", "--to", "chroma:db")
    assert found["index"] == "chroma:db"
    assert found["documents"] == len(run_json("list", "-i", "i")["documents"])
    assert [hit["chunk_id"] for hit in run_json("search", "ducks", "-i", "chroma:db")["hits"]] == [
        hit["chunk_id"] for hit in before
    ]
    shown = run_json("info", "-i", "chroma:db")
    assert shown["index"] == "chroma:db"
    assert shown["bytes"] > 0
    refused = run("rebuild", "-i", "chroma:db", "-q")
    assert refused.exit_code == 2
    assert "--to" in refused.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one child")
def test_interrupted_by_the_user(folder: Path) -> None:
    many = folder / "many"
    many.mkdir()
    (many / "a.txt").write_text("A short one that is done at once.")
    (many / "b.txt").write_text("\n\n".join(f"Paragraph {i} about ducks and ponds and zebras." for i in range(40_000)))
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from m3rag.cli import main; main()"
    command = [sys.executable, "-c", code, "ingest", "many", "-i", "i"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "a.txt" in process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert [d["id"] for d in run_json("list", "-i", "i")["documents"]] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="names there hold no line's end")
def test_a_files_name_forges_no_row(files: Path) -> None:
    (files / "zebra.txt").rename(files / "zebra.txt\nremoved   enten.md")
    shown = "zebra.txt\\u000aremoved   enten.md"
    done = run("ingest", "papers", "-i", "i")
    assert f"added     {shown}  1 chunk" in done.stdout.splitlines()
    (files / "empty\nfailed.txt").write_text("")
    assert "failed empty" not in run("ingest", "papers", "-i", "i", "-q").stderr.splitlines()
    listed = run("list", "-i", "i").stdout.splitlines()
    assert len(listed) == 2
    assert listed[1].startswith(shown)
    assert any(line.endswith(shown) for line in run("search", "zebra stripes", "-i", "i").stdout.splitlines())
    name = "zebra.txt\nremoved   enten.md"
    assert run("show", name, "-i", "i").stdout.startswith(f"{shown}: ")


def test_a_dry_run_counts_no_chunks_of_what_it_did_not_read(files: Path) -> None:
    lines = run("ingest", "papers", "-i", "i", "--dry-run").stdout.splitlines()
    assert lines == ["added     enten.md", "added     zebra.txt"]


@pytest.mark.parametrize("command", ["search", "ask"])
def test_more_hits_than_can_be_counted_are_wrong_usage(index: Path, command: str) -> None:
    result = run(command, "ducks", "-i", "i", "-k", "99999999999999999999")
    assert result.exit_code == 2
    assert "2147483647" in result.stderr


@pytest.mark.parametrize("to", ["i", "./i/", "{here}/i", "link"])
def test_an_index_is_not_copied_into_itself(index: Path, folder: Path, to: str) -> None:
    if to == "link":
        try:
            Path("link").symlink_to("i")
        except OSError:
            pytest.skip("no links here")
    result = run("rebuild", "-i", "i", "--to", to.format(here=folder))
    assert result.exit_code == 2
    assert "are the same index: give another place with --to" in result.stderr


def test_places_that_are_one() -> None:
    pairs = {
        ("chroma:db", "chroma:./db?collection=m3rag"): True,
        ("chroma:db", "chroma:db?collection=other"): False,
        ("chroma:db", "db"): False,
        ("http://h:6333", "http://H:6333/m3rag"): True,
        ("http://h:6333/a", "http://h:6333/b"): False,
        ("http://h:6333/a", "https://h:6333/a"): False,
    }
    assert {pair: _are_one(place_of(pair[0]), place_of(pair[1])) for pair in pairs} == pairs


def test_a_password_in_the_address_of_an_index_is_never_shown() -> None:
    result = CliRunner().invoke(app, ["serve", "-i", "http://user:hush@localhost:1/docs"])
    assert result.exit_code == 3
    assert "M3RAG_INDEX_API_KEY" in result.stderr
    assert "hush" not in result.output
