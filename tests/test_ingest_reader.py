from dataclasses import replace

import pytest

from m3rag import KnowledgeBase
from m3rag.chunking import Chunker, document_version
from m3rag.reading import docling
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Document


def test_another_reader_is_another_version_and_the_usual_one_the_same_as_ever():
    document = Document("a", "text", "00")
    assert document_version(document, Chunker()) == document_version(replace(document, reader="builtin"), Chunker())
    assert document_version(document, Chunker()) != document_version(replace(document, reader="docling"), Chunker())


def test_an_absent_reader_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(docling, "find_spec", lambda _: None)
    (tmp_path / "a.md").write_text("# Ducks", encoding="utf-8")
    settings = Settings(index=str(tmp_path / "index"), reader="docling")
    with KnowledgeBase(settings=settings, encoder=HashEncoder()) as kb, pytest.raises(ImportError, match="docling"):
        kb.ingest(tmp_path / "a.md")
    assert not (tmp_path / "index").exists()
