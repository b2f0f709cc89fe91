"""Indexes without a model, clients of an application, and a real server on a free port."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from m3rag import KnowledgeBase
from m3rag.answering.protocol import Message
from m3rag.server.connections import config_of
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Chunk

DUCKS = "Ducks swim in ponds. They eat pond weed and snails.\n"
FROGS = "Frogs jump far. A frog hears with drums behind its eyes.\n"

WAIT_S = 20.0


def base(path: Path | str, **options: Any) -> KnowledgeBase:
    """An index in a folder, which may not be there yet, without a model and without a person's settings."""
    place = path if isinstance(path, str) else path / "index"
    return KnowledgeBase(place, settings=Settings(index="unused"), **{"encoder": HashEncoder(), **options})


class Halved:
    """A language model of somebody's own, whose reply holds half of a pair of surrogates."""

    name = "halved"

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        yield from ("Ducks ", "\ud83d", " swim [1].")

    def complete(self, messages: Sequence[Message]) -> str:
        return "".join(self.stream(messages))


@asynccontextmanager
async def alive(app: FastAPI) -> AsyncIterator[None]:
    """The application's life, in a task of its own: fixtures are set up and torn down in different ones."""
    up, down = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            up.set()
            await down.wait()

    task = asyncio.create_task(live())
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        waiting.cancel()
        down.set()
        await task


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a living application."""
    async with alive(app):
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as one:
            yield one


def filled(**options: Any) -> KnowledgeBase:
    """An index in memory of two documents of one chunk each, `ducks.txt` and `frogs.txt`."""
    kb = base(":memory:", **options)
    texts = {"ducks.txt": DUCKS, "frogs.txt": FROGS}
    kb.upsert([Chunk(id=f"{name}#0", document_id=name, text=t, start=0, end=len(t)) for name, t in texts.items()])
    return kb


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """A job, when it has ended."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        job: dict[str, Any] = (await client.get(f"/api/jobs/{job_id}")).json()
        if job["state"] in ("done", "unchanged", "failed"):
            return job
        await asyncio.sleep(0.02)
    raise AssertionError(f"the job has not ended: {job}")


async def uploaded(client: httpx.AsyncClient, name: str, content: bytes) -> dict[str, Any]:
    """The job of an upload, when it has ended."""
    response = await client.post("/api/documents", files=[("files", (name, content))])
    assert response.status_code == 202, response.text
    (job,) = response.json()["jobs"]
    return await ended(client, job["id"])


class Served:
    """A running server.

    Attributes:
        url: Its address.
    """

    def __init__(self, app: FastAPI, **options: Any) -> None:
        config = config_of(app, **options)
        config.port = 0
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.url = ""

    def start(self) -> None:
        self.thread.start()
        until = time.monotonic() + WAIT_S
        while not self.server.started and time.monotonic() < until and self.thread.is_alive():
            time.sleep(0.01)
        assert self.server.started
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[Served]:
    """Runs an application on a free port."""
    server = Served(app, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def events_of(text: str) -> list[tuple[str, Any]]:
    """The names and data of an event stream."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found
