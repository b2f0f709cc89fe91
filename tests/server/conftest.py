"""What tests of the server share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.server import create_app
from m3rag.settings import ServeSettings

from .serving import client_of, filled


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index in memory has its uploads in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kb() -> KnowledgeBase:
    """Two documents."""
    return filled()


@pytest.fixture
async def client(kb: KnowledgeBase) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application over `kb`, as set up by default."""
    async with client_of(create_app(kb, ServeSettings())) as one:
        yield one
