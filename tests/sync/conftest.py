from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from m3rag.knowledge_base import KnowledgeBase
from m3rag.output import M3Output
from m3rag.settings import Settings
from m3rag.testing import HashEncoder


class CountingEncoder(HashEncoder):
    """Keeps the passages it encodes, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        if texts:
            self.calls.append(list(texts))
        return super().encode_documents(texts)

    def taken(self) -> list[str]:
        """The passages encoded since the last call of this."""
        texts = [text for call in self.calls for text in call]
        self.calls.clear()
        return texts


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def kb(tmp_path: Path, encoder: CountingEncoder) -> Iterator[KnowledgeBase]:
    settings = Settings(chunk_tokens=16, overlap_tokens=0)
    with KnowledgeBase(tmp_path / "index", encoder=encoder, settings=settings) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A long document of ten paragraphs, and three short ones."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    paragraphs = [f"Paragraph {i} tells of ducks {i} and ponds {i} and rain {i} at length." for i in range(10)]
    (root / "long.md").write_text("\n\n".join(paragraphs))
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (root / name).write_text(f"The text of {name} is short.")
    return root
