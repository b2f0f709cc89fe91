from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from m3rag.doctor.check import Check
from m3rag.doctor.index import check_index
from m3rag.encoder.encoder import M3Encoder
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import load_settings
from m3rag.store.place import place_of


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu")


@pytest.fixture
def index(folder: Path, encoder: M3Encoder) -> Path:
    """An index of three files, closed."""
    for name in ("a", "b", "c"):
        (folder / "papers").mkdir(exist_ok=True)
        (folder / "papers" / f"{name}.txt").write_text(f"Ducks {name}.")
    with KnowledgeBase(folder / "i", encoder=encoder) as kb:
        assert kb.ingest(folder / "papers").count("added") == 3
    return folder / "i"


def look(index: Path, **settings: object) -> dict[str, Check]:
    return {check.name: check for check in check_index(place_of(index), load_settings(**settings))}


def test_a_sound_index(index: Path) -> None:
    found = look(index)
    assert {name: check.severity for name, check in found.items()} == {
        "index": "ok",
        "index model": "ok",
        "files": "ok",
    }
    assert "3 documents, 3 chunks" in found["index"].message


def test_none_yet(folder: Path) -> None:
    found = look(folder / "none")
    assert found["index"].severity == "info"
    assert "m3rag ingest" in (found["index"].remedy or "")
    assert not (folder / "none").exists()


def test_a_remedy_can_be_pasted(index: Path) -> None:
    there = index.rename(index.with_name("it's an index"))
    (there.parent / "papers" / "a.txt").write_text("Ducks changed.")
    remedy = look(there)["files"].remedy or ""
    assert shlex.split(remedy) == ["m3rag", "ingest", str(there.parent / "papers" / "a.txt"), "--index", str(there)]


def test_held_by_another(index: Path, encoder: M3Encoder) -> None:
    with KnowledgeBase(index, encoder=encoder) as held:
        assert held.documents()
        found = look(index)
    assert list(found) == ["index"]
    assert (found["index"].severity, "other process" in (found["index"].remedy or "")) == ("error", True)


def test_damaged_and_of_a_newer_version(index: Path) -> None:
    manifest = index / "manifest.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**written, "format": 99}))
    assert look(index)["index"].remedy == "pip install -U m3rag"
    manifest.write_text("{")
    found = look(index)["index"]
    assert found.severity == "error"
    assert "ingest again" in (found.remedy or "")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_an_index_that_may_not_be_written_is_not_called_damaged(
    index: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:  # as the tests may run as root, to whom nothing is refused
        patched.setattr(Path, "unlink", refuse)  # the seal is broken first
        broken = look(index)["index"]
    (index / "seal.json").unlink()
    with monkeypatch.context() as patched:
        told = RuntimeError(f"Failed to open mmap payload storage: {error.strerror} (os error {error.errno})")
        patched.setattr("qdrant_edge.EdgeShard", SimpleNamespace(load=Mock(side_effect=told)))
        engine = look(index)["index"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        unread = look(index)["index"]
    for found in (broken, engine, unread):
        assert found.severity == "error"
        assert f"this user needs write permission on {index}" in found.message
        assert "backup" not in found.message
        assert found.remedy is not None
        assert found.remedy.startswith(f"give this user write permission on {index}")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(index: Path) -> None:
    index.chmod(0o500)
    try:
        assert "this user needs write permission" in look(index)["index"].message
    finally:
        index.chmod(0o700)


def test_made_by_another_model(index: Path) -> None:
    found = look(index, model="mini")["index model"]
    assert found.severity == "error"
    assert found.remedy == f"m3rag rebuild --index {index} --model mini"


def test_files_that_are_gone_or_changed(index: Path, folder: Path) -> None:
    (folder / "papers" / "a.txt").unlink()
    (folder / "papers" / "b.txt").write_text("Geese.")
    checks = list(check_index(place_of(index), load_settings()))
    gone, changed = [check for check in checks if check.name == "files"]
    assert gone.severity == changed.severity == "warning"
    assert gone.message.startswith("a.txt: is in the index")
    assert "--sync" in (gone.remedy or "")
    assert changed.message.startswith("b.txt: is not as ingested")
    assert changed.remedy == f"m3rag ingest {folder / 'papers' / 'b.txt'} --index {index}"


def test_other_chunking_settings_change_all(index: Path) -> None:
    found = look(index, chunk_tokens=128)["files"]
    assert found.message.startswith("a.txt, b.txt, c.txt: are not as ingested")


def test_an_index_and_files_that_may_not_be_looked_at(index: Path, shut: Callable[[Path], None]) -> None:
    shut(index.parent / "papers")
    found = look(index)["files"]
    assert "may not be read" in found.message
    shut(index)
    found = look(index)["index"]
    assert "this user needs write permission" in found.message
    assert (found.remedy or "").startswith("give this user write permission")
