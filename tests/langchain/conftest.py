"""What the tests of LangChain's classes share: an index in every kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from m3rag.store import QdrantStore
from m3rag.store.place import Place


@pytest.fixture
def index_at(tmp_path: Path) -> Iterator[Callable[[str], str | Path | Place]]:
    """Where an index of a kind lies: `memory`, `edge`, `chroma`, or `qdrant`, a client that is its own server."""
    client = QdrantClient(":memory:")
    places: dict[str, str | Path | Place] = {
        "memory": ":memory:",
        "edge": tmp_path / "index",
        "chroma": f"chroma:{tmp_path / 'chroma'}",
        "qdrant": Place("qdrant", None, lambda: QdrantStore, ":memory:", {"collection": "docs", "client": client}, {}),
    }
    yield places.__getitem__
    client.close()
