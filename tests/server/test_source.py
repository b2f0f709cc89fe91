from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from m3rag.chunking import Chunker
from m3rag.server.engine import _pdf_of
from m3rag.server.source import text_of
from m3rag.server.uploads import Uploads
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Document

TEXT = (
    "# Ducks\n\nDucks swim.  They dive.\n\n\n## Food\n\n" + "They eat pond weed, snails and 小鱼。 " * 60 + "\n\nEnd.\n"
)


def chunk(start: int, text: str) -> Chunk:
    return Chunk(id=f"{start}-{text}", document_id="d", text=text, start=start, end=start + len(text))


@pytest.mark.parametrize("strategy", ["structure", "fixed", "sentence-window", "small-to-big"])
def test_every_character_that_is_seen_stands_where_it_stood(strategy: str) -> None:
    chunker = Chunker(strategy=strategy, chunk_tokens=40, overlap_tokens=10)
    chunks = chunker.split(Document(id="d", text=TEXT, content_hash="0"), HashEncoder())
    assert len(chunks) > 3
    text = text_of(chunks)
    assert all(text[c.start : c.end] == c.text for c in chunks)
    seen = [(i, c) for i, c in enumerate(TEXT) if not c.isspace()]
    assert [(i, c) for i, c in enumerate(text) if not c.isspace()] == seen


def test_chunks_that_contradict_each_other_lose_nothing_of_the_first() -> None:
    assert text_of([chunk(0, "abcdef"), chunk(0, "xyz"), chunk(4, "EFGH")]) == "abcdefGH"
    assert text_of([chunk(2, "b"), chunk(4, "d")]) == "\n\nb d"
    assert text_of([]) == ""


def test_a_pdf_that_may_not_be_looked_at_has_no_pages_to_show(tmp_path: Path, shut: Callable[[Path], None]) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF")
    record = DocumentRecord(id="a.pdf", title="", version="", chunks=1, source=str(file))
    uploads = Uploads(tmp_path)
    assert _pdf_of(record, uploads) == file
    shut(tmp_path)
    assert _pdf_of(record, uploads) is None


def test_an_upload_that_may_not_be_looked_at_has_no_pages_to_show(tmp_path: Path, shut: Callable[[Path], None]) -> None:
    uploads = Uploads(tmp_path)
    file = uploads.new("a.pdf")
    file.write_bytes(b"%PDF")
    record = DocumentRecord(id="a.pdf", title="", version="", chunks=1, source=str(file))
    assert _pdf_of(record, uploads) == file
    shut(tmp_path)
    assert _pdf_of(record, uploads) is None
