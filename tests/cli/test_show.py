"""`m3rag show` shows what is stored of a document, as it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from m3rag.cli.app import app
from m3rag.encoder.encoder import M3Encoder
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings

TEXT = "# Birds\n\n## Ducks\n\nDucks swim. \x1b[2JThey dive.\n\n## Geese\n\nGeese fly south.\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    root = tmp_path_factory.mktemp("show")
    (root / "birds.md").write_text(TEXT)
    settings = Settings(chunk_tokens=8, overlap_tokens=0)
    with KnowledgeBase(root / "i", settings=settings, encoder=M3Encoder(str(tiny_checkpoint), device="cpu")) as kb:
        assert kb.ingest(root).count("added") == 1
    return root / "i"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["show", *arguments])


def test_chunks_with_their_places(index: Path) -> None:
    result = run("birds.md", "-i", str(index), "--json")
    assert result.exit_code == 0
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema"] == "m3rag.show/1"
    document, chunks = found["document"], found["chunks"]
    assert (document["id"], document["pages"], document["chunks"]) == ("birds.md", 0, len(chunks))
    assert {"birds.md"} == {Path(document["source"]).name}
    geese = next(chunk for chunk in chunks if "Geese fly" in chunk["text"])
    assert geese["headings"] == ["Birds", "Geese"]
    assert geese["end"] - geese["start"] == len(geese["text"])
    assert geese["page"] is None
    assert not any(key.startswith("m3rag") for chunk in chunks for key in chunk["metadata"])


def test_what_a_person_sees_and_a_terminal_does_not_obey(index: Path) -> None:
    result = run("birds.md", "-i", str(index))
    assert result.exit_code == 0
    assert "\n    Geese fly south." in result.stdout
    assert "Birds > Geese" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_document_that_is_not_there(index: Path) -> None:
    result = run("bird.md", "-i", str(index))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean birds.md?" in result.stderr
    assert "`m3rag list`" in run("zzz", "-i", str(index)).stderr


def test_a_page_that_is_not_there(index: Path) -> None:
    result = run("birds.md", "--page", "3", "-i", str(index))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has no pages" in result.stderr
