"""QdrantStore passes the suite in local mode, and keeps its promises to several clients and after failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from m3rag.store.qdrant import QdrantStore
from m3rag.testing import StoreSuite
from m3rag.types import ModelInfo


class TestQdrantStore(StoreSuite):
    """The client outlives the stores, as a server would."""

    persistent = True
    second_handle = "shared"

    @pytest.fixture(autouse=True)
    def _client(self) -> Iterator[None]:
        self.client = QdrantClient(":memory:")
        yield
        self.client.close()

    def make_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return QdrantStore.create(None, model, collection=path.name, client=self.client)

    def reopen_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return QdrantStore.open(None, model, collection=path.name, client=self.client)
