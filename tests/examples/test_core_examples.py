"""The examples of m3rag's own classes run as they stand, with the embedded model."""

from __future__ import annotations

import asyncio
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from m3rag import KnowledgeBase
from m3rag.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["async_server", "chroma_adoption", "cross_lingual_search", "own_checkpoint", "qdrant_cluster"]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short documents in different languages."""
    folder = tmp_path_factory.mktemp("documents")
    shutil.copy(EXAMPLES / "documents" / "fastapi-cors.es.md", folder)
    (folder / "ducks.md").write_text("# Ducks\n\nDucks eat water plants, seeds and insects.\n", encoding="utf-8")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example with arguments and gives what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_chroma_adoption(run: Run) -> None:
    pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")
    first, second = run("chroma_adoption").splitlines()
    assert first.startswith("What does E4711 mean?  Error E4711: the pump has no water.  dense 0.")
    assert second.startswith("What do trains run on?  Trains run on rails.  dense 0.")


def test_cross_lingual_search(run: Run, documents: Path, tmp_path: Path) -> None:
    places = ["--documents", documents, "--index", tmp_path / "index"]
    lines = run("cross_lingual_search", "Was fressen Enten?", "Что такое CORS?", *places).splitlines()
    assert lines[0] == "Was fressen Enten?"
    assert lines[3].startswith("  all ")
    assert "ducks.md: # Ducks Ducks eat water plants" in lines[3]
    assert "fastapi-cors.es.md: " in lines[-1]


def test_own_checkpoint(run: Run, tiny_checkpoint: Path) -> None:
    lines = run("own_checkpoint", tiny_checkpoint).splitlines()
    assert lines[0].startswith(f"{tiny_checkpoint}: dense 64, ColBERT 64, ")
    assert lines[5].startswith("mini: dense 384, ColBERT 256, ")
    assert lines[9] == "  all: 3 of 3 found first"


async def test_async_server(documents: Path, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    make_app = runpy.run_path(str(EXAMPLES / "async_server.py"))["make_app"]
    with KnowledgeBase(tmp_path / "index", settings=Settings()) as kb:
        kb.ingest(documents)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(kb)), base_url="http://x") as client:
            questions = ["What do ducks eat?", "¿Qué es CORS?"] * 3
            calls = [client.get("/search", params={"question": question, "k": 1}) for question in questions]
            found = [reply.json()[0]["document"] for reply in await asyncio.gather(*calls)]
            assert found == ["ducks.md", "fastapi-cors.es.md"] * 3
            refused = await client.get("/search", params={"question": " "})
            assert refused.status_code == 422
            assert refused.json()["detail"]


def test_qdrant_cluster(run: Run, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the server that M3RAG_QDRANT_URL names, else in the client's local mode, behind the same class."""
    qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    url = os.environ.get("M3RAG_QDRANT_URL")
    if url is None:
        url, folder = "http://localhost:6333", str(tmp_path / "qdrant")
        monkeypatch.setattr(
            "m3rag.store.qdrant_connection.QdrantClient", lambda **_: qdrant_client.QdrantClient(path=folder)
        )
    elif key := os.environ.get("M3RAG_QDRANT_API_KEY"):
        monkeypatch.setenv("M3RAG_INDEX_API_KEY", key)
    collection = f"m3rag-test-{uuid4().hex}"
    printed = run("qdrant_cluster", url, "What do ducks eat?", "--documents", documents, "--collection", collection)
    assert len(printed.splitlines()) == 3
    assert "  ducks.md  # Ducks Ducks eat water plants, seeds and insects." in printed.splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 45


def test_the_list_names_every_example() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in sorted(EXAMPLES.glob("*.py")) if f"({path.name})" not in listed]
    assert not missing
