"""Servers of the tests, and what is done on their page again and again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import ServeSettings
from m3rag.testing.llm_server import LLMRequest, Reply

from ..reading.pdfs import pdf

pytest.importorskip("fastapi", reason='the browser tests need the server: pip install "m3rag[app]"')
pytest.importorskip("uvicorn", reason='the browser tests need the server: pip install "m3rag[app]"')
playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
expect = playwright.expect

KEY = "a key of the tests"
PATIENCE = 20_000  # milliseconds: a busy machine, not a slow page

DUCKS = "Ducks swim on ponds. A duck eats grass, small fish and insects.\n\nThey sleep on one leg, near the water.\n"
STARS = "A black hole is made when a massive star falls in on itself. Light does not leave it.\n"
ARABIC = "البط يسبح في البركة. يأكل البط العشب والأسماك الصغيرة والحشرات.\n"
ASTRAL = "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🦆🦆🦆 comes first. The heron eats frogs by the river.\n"
"""Characters that JavaScript counts twice stand before the sentence that is cited."""

HANDBOOK = pdf(
    "The garden handbook\nThis book is about ponds and the animals in them.\nIt was printed in Leeds.",
    "Water animals\nDucks eat pond weed, snails and grass seeds.\nThey sleep on one leg, near the water.",
    title="The garden handbook",
)
"""Two pages; what ducks eat stands on the second."""


@dataclass
class Site:
    """A running server.

    Attributes:
        url: Its address, with a slash at the end.
        kb: What it serves.
        script: What the language model behind it says to a question that holds the key.
        asked: What the language model was asked.
    """

    url: str
    kb: KnowledgeBase
    script: dict[str, Reply] = field(default_factory=dict)
    asked: list[LLMRequest] = field(default_factory=list)


@contextmanager
def serving(kb: KnowledgeBase, settings: ServeSettings) -> Iterator[str]:
    """The address of a server of a knowledge base, in a thread; ended, with all its streams, at the exit."""
    import uvicorn

    from m3rag.server.app import create_app

    config = uvicorn.Config(create_app(kb, settings), log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def write(folder: Path, **files: str) -> Path:
    """A new folder with texts in it."""
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def upload(url: str, *paths: Path) -> None:
    """Upload files and wait until they are in the index."""
    with httpx.Client(base_url=url, timeout=60) as client:
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        client.post("/api/documents", files=files).raise_for_status()
        waited = threading.Event()
        for _ in range(1200):
            jobs = client.get("/api/documents").json()["jobs"]
            if all(job["state"] in ("done", "unchanged") for job in jobs):
                return
            assert not any(job["state"] == "failed" for job in jobs), jobs
            waited.wait(0.1)
    raise AssertionError(f"the uploads are not done: {jobs}")


def ask(page: Any, question: str) -> None:
    """Type a question and press Enter."""
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_label("Question", exact=True).press("Enter")


def ready(page: Any) -> None:
    """Wait until the page knows its documents."""
    expect(page.locator("#document-list > li").first).to_be_visible()


def highlight(page: Any, label: str) -> None:
    """Choose what is marked in the passages of the only answer."""
    page.locator(".choice").get_by_text(label, exact=True).click()
