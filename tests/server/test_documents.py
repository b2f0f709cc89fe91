"""Uploads become documents, whatever they are called; their source can be looked at."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.server import create_app
from m3rag.server.engine import data_folder
from m3rag.server.jobs import MOST_WAITING
from m3rag.settings import ServeSettings, Settings

from ..reading.pdfs import pdf
from .serving import DUCKS, WAIT_S, base, client_of, ended, filled, uploaded


def files(kb: KnowledgeBase) -> list[Path]:
    assert kb.path is not None
    return sorted(path for path in kb.path.with_name("index-data").rglob("*") if path.is_file())


async def ids(client: httpx.AsyncClient) -> list[str]:
    return [one["id"] for one in (await client.get("/api/documents")).json()["documents"]]


async def test_from_nothing_to_a_document_and_back(tmp_path: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        assert (await client.get("/api/documents")).json() == {"documents": [], "jobs": []}
        found = (await client.post("/api/search", json={"query": "ducks"})).json()
        assert found["hits"] == []
        assert found["no_hits"]["reason"] == "empty index"

        job = await uploaded(client, "../../Teich\u0308e.txt", DUCKS.encode())
        assert job == {**job, "name": "Teicḧe.txt", "state": "done", "done": 1, "total": 1}
        assert job["document_id"] == "Teicḧe.txt"
        (document,) = (await client.get("/api/documents")).json()["documents"]
        assert document == {"id": "Teicḧe.txt", "title": "Teicḧe.txt", "chunks": 1, "pages": 0, "has_image": False}
        (path,) = files(kb)
        assert path.name == "Teicḧe.txt"
        assert len(path.parent.name) == 16

        assert (await uploaded(client, "Teicḧe.txt", DUCKS.encode()))["state"] == "unchanged"
        assert files(kb) == [path]
        deleted = await client.delete("/api/documents", params={"document_id": "Teicḧe.txt"})
        assert deleted.status_code == 204
        assert deleted.content == b""
        assert await ids(client) == []
        assert files(kb) == []


async def test_the_same_name_replaces_and_a_broken_file_does_not(tmp_path: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.pdf", pdf("Ducks swim"))
        job = await uploaded(client, "notes.pdf", pdf("Frogs jump"))
        assert job["state"] == "done"
        source = {"document_id": "notes.pdf"}
        assert "Frogs jump" in (await client.get("/api/source", params=source)).json()["text"]
        kept = files(kb)
        assert len(kept) == 1

        broken = await uploaded(client, "notes.pdf", b"%PDF-1.7 and no more")
        assert broken["state"] == "failed"
        assert broken["message"]
        assert str(tmp_path) not in broken["message"]
        assert "Frogs jump" in (await client.get("/api/source", params=source)).json()["text"]
        assert files(kb) == kept
        image = await client.get("/api/page/image", params={**source, "page": 1})
        assert image.status_code == 200


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", b"", "is empty"),
        ("odd.xyz", b"abc", "is of no known format"),
        ("x.docx", b"PK\x03\x04no", "is "),
        ("~$a.txt", b"Ducks swim.", "is no file that m3rag reads: give it another name"),
    ],
)
async def test_what_cannot_be_read_is_said_and_not_kept(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        job = await uploaded(client, name, content)
        assert job["state"] == "failed"
        assert job["document_id"] is None
        assert job["message"].startswith(f"{name} {told}")
        assert str(tmp_path) not in job["message"]
        assert await ids(client) == []
        assert files(kb) == []


async def test_several_files_in_one_request(tmp_path: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        form = [
            ("files", ("a.txt", b"Ants work.")),
            ("files", ("b.exe", b"MZ")),
            ("files", ("c.md", b"# Cats\n\nPurr.")),
        ]
        jobs = (await client.post("/api/documents", files=form)).json()["jobs"]
        states = [(await ended(client, job["id"]))["state"] for job in jobs]
        assert states == ["done", "failed", "done"]
        assert await ids(client) == ["a.txt", "c.md"]
        assert [job["name"] for job in (await client.get("/api/documents")).json()["jobs"]] == [
            "a.txt",
            "b.exe",
            "c.md",
        ]


async def test_an_upload_takes_no_document_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own.txt").write_text("My own words.")
    kb = base(tmp_path)
    kb.ingest(folder)
    async with client_of(create_app(kb, ServeSettings())) as client:
        job = await uploaded(client, "own.txt", b"Others.")
        assert job["state"] == "failed"
        assert "rename" in job["message"]
        assert str(tmp_path) not in job["message"]
        assert (await client.delete("/api/documents", params={"document_id": "own.txt"})).status_code == 204
    assert (folder / "own.txt").read_text() == "My own words."


async def test_a_form_without_files_is_refused(client: httpx.AsyncClient) -> None:
    for form in ({}, {"files": "text"}):
        assert (await client.post("/api/documents", data=form)).status_code == 422


async def test_a_request_that_cannot_be_kept_is_said(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", full)
    response = await client.post("/api/documents", files=[("files", ("a.txt", b"A."))])
    assert response.status_code == 507
    assert "No space left" in response.json()["error"]["message"]


async def test_searches_go_on_while_a_file_is_encoded(tmp_path: Path) -> None:
    kb = filled()
    at_work, go_on = threading.Event(), threading.Event()
    encode = kb.encoder.encode_documents

    def slow(texts: list[str]) -> object:
        at_work.set()
        assert go_on.wait(20)
        return encode(texts)

    kb.encoder.encode_documents = slow  # type: ignore[method-assign, assignment]
    async with client_of(create_app(kb, ServeSettings())) as client:
        kb.encoder.encode_queries = encode  # type: ignore[method-assign]
        (job,) = (await client.post("/api/documents", files=[("files", ("new.txt", b"New."))])).json()["jobs"]
        assert await asyncio.to_thread(at_work.wait, 20)
        hits = (await client.post("/api/search", json={"query": "ducks swim"})).json()["hits"]
        assert hits[0]["document_id"] == "ducks.txt"
        assert (await client.get(f"/api/jobs/{job['id']}")).json()["state"] in ("reading", "encoding")
        go_on.set()
        assert (await ended(client, job["id"]))["state"] == "done"


async def test_a_queue_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_WAITING > 1
    monkeypatch.setattr("m3rag.server.jobs.MOST_WAITING", 0)
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        response = await client.post("/api/documents", files=[("files", ("a.txt", b"A."))])
        assert response.status_code == 503
    assert files(kb) == []


async def test_of_an_upload_that_fills_the_queue_the_rest_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("m3rag.server.jobs.MOST_WAITING", 2)
    monkeypatch.setattr("m3rag.server.jobs.Jobs._take", lambda *_: go_on.wait(WAIT_S))
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        given = [("files", (f"{n}.txt", b"Ducks.")) for n in range(4)]
        response = await client.post("/api/documents", files=given)
        assert response.status_code == 202
        jobs = response.json()["jobs"]
        assert [job["name"] for job in jobs] == ["0.txt", "1.txt", "2.txt", "3.txt"]
        assert [job["state"] for job in jobs] == ["queued", "queued", "failed", "failed"]
        assert "waiting already" in jobs[3]["message"]
        assert (await client.get(f"/api/jobs/{jobs[3]['id']}")).json() == jobs[3]
        assert sorted(path.name for path in files(kb) if path.suffix == ".txt") == ["0.txt", "1.txt"]
        assert (await client.post("/api/documents", files=given)).status_code == 503
        go_on.set()


async def test_a_server_goes_on_with_what_a_killed_one_has_left(tmp_path: Path) -> None:
    kb = base(tmp_path)
    app = create_app(kb, ServeSettings())
    async with client_of(app) as client:
        await uploaded(client, "old.txt", b"Old words.")
    uploads = app.state.engine.uploads
    (old,) = files(kb)
    (uploads.aside).mkdir()
    old.parent.rename(uploads.aside / old.parent.name)  # killed while another old.txt was read
    waiting = uploads.new("waiting.txt")
    waiting.write_text("Still waiting.")
    partial = uploads.new("partial.txt").parent / ".m3rag-part"
    partial.write_text("half")
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        until = time.monotonic() + WAIT_S
        while not (jobs := (await client.get("/api/documents")).json()["jobs"]) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert (await ended(client, jobs[0]["id"]))["name"] == "waiting.txt"
        assert await ids(client) == ["old.txt", "waiting.txt"]
    assert sorted(path.name for path in files(kb)) == ["old.txt", "waiting.txt"]
    assert old.exists()


async def test_pages_of_a_pdf_are_drawn_and_passages_boxed(tmp_path: Path) -> None:
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        await uploaded(client, "two.pdf", pdf("First page here", "Second page there"))
        (document,) = (await client.get("/api/documents")).json()["documents"]
        assert document == {**document, "pages": 2, "has_image": True}
        source = (await client.get("/api/source", params={"document_id": "two.pdf"})).json()
        assert source["is_pdf"] is True
        assert [page["number"] for page in source["pages"]] == [1, 2]
        second = source["pages"][1]
        assert source["text"][second["start"] : second["end"]].strip() == "Second page there"

        image = await client.get("/api/page/image", params={"document_id": "two.pdf", "page": 2})
        assert image.headers["content-type"] == "image/png"
        assert image.content.startswith(b"\x89PNG")
        start = source["text"].index("page there")
        where = {"document_id": "two.pdf", "page": 2, "start": start, "end": start + 10}
        (box,) = (await client.get("/api/page/rectangles", params=where)).json()["rectangles"]
        left, top, right, bottom = box
        # The line begins at x 50 of 595 and stands on y 700 of 842, from below, in 12 points.
        assert 50 / 595 < left < right < 0.5
        assert (842 - 712) / 842 < top < bottom < (842 - 695) / 842

        for params, status in (({"page": 3}, 422), ({"page": 0}, 422), ({"page": "x"}, 422)):
            response = await client.get("/api/page/image", params={"document_id": "two.pdf", **params})
            assert response.status_code == status
            assert str(tmp_path) not in response.text
        wrong = await client.get("/api/page/rectangles", params={**where, "end": 0})
        assert wrong.status_code == 400


async def test_a_document_without_pages_has_no_picture(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/page/image", params={"document_id": "ducks.txt", "page": 1})
    assert response.status_code == 404
    source = (await client.get("/api/source", params={"document_id": "ducks.txt"})).json()
    assert source == {"document_id": "ducks.txt", "title": "ducks.txt", "text": DUCKS, "pages": [], "is_pdf": False}


async def test_deletions_that_wait_keep_nobody_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb = base(tmp_path)
    waiting, go_on, remove = threading.Event(), threading.Event(), kb.remove

    def slow(document_ids: Sequence[str]) -> int:
        waiting.set()
        assert go_on.wait(WAIT_S)
        return remove(document_ids)

    monkeypatch.setattr(kb, "remove", slow)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "a.txt", b"Ducks.")
        as_many_as_threads = min(32, (os.cpu_count() or 1) + 4)
        deletions = [
            asyncio.create_task(client.delete("/api/documents", params={"document_id": "a.txt"}))
            for _ in range(as_many_as_threads)
        ]
        while not waiting.is_set():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(WAIT_S / 2):
            assert await ids(client) == ["a.txt"]
        go_on.set()
        answered = sorted([(await one).status_code for one in deletions])
        assert answered == [204] + [404] * (as_many_as_threads - 1)


def test_indexes_on_a_server_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def folder(address: str) -> Path:
        return data_folder(KnowledgeBase(address, settings=Settings()), ServeSettings())

    addresses = ["http://localhost:6333/a", "http://localhost:6333/b", "http://localhost:6333/a-b", ":memory:"]
    found = [folder(address) for address in addresses]
    assert len(set(found)) == len(found)
    assert {path.parent for path in found} == {tmp_path}
    assert folder(addresses[0]) == found[0]
    assert "localhost-6333-a" in found[0].name
