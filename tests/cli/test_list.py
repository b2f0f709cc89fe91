"""`m3rag list` lines its columns up, and says one thing in the singular."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3rag.cli.app import app
from m3rag.encoder.encoder import M3Encoder
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings

LONG = f"{'x' * 60}.txt"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    root = tmp_path_factory.mktemp("list")
    (root / "a.md").write_text("# Birds\n\nDucks swim.\n\n# Ponds\n\nFrogs live in ponds.\n")
    (root / "notes.txt").write_text("Geese fly south.\n")
    (root / LONG).write_text("Swans are large.\n")
    settings = Settings(chunk_tokens=8, overlap_tokens=0)
    with KnowledgeBase(root / "i", settings=settings, encoder=M3Encoder(str(tiny_checkpoint), device="cpu")) as kb:
        assert kb.ingest(root).count("added") == 3
        assert kb.store.document("a.md").chunks > 1  # type: ignore[union-attr]
    return root / "i"


def run(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_columns_are_lined_up(index: Path) -> None:
    first, second, longest = run("list", "-i", str(index))
    assert first.startswith("a.md ")
    assert first.endswith("chunks  Birds")
    assert second.startswith("notes.txt ")
    assert second.endswith(" 1 chunk")  # its title is its name, which is not said twice
    assert first.index(" chunks") + len(" chunks") == len(second)
    assert longest.startswith(LONG)  # a very long name moves no column but its own
    assert len(second) < len(LONG)


def test_a_part_of_a_name_is_understood(index: Path) -> None:
    result = CliRunner().invoke(app, ["show", "note", "-i", str(index)])
    assert result.exit_code == 2
    assert "did you mean notes.txt?" in result.stderr


def test_one_thing_is_said_in_the_singular(index: Path) -> None:
    assert run("show", "notes.txt", "-i", str(index))[1].startswith("1 chunk,")
