"""Where uploaded files lie when something comes between: an end of the server, an error, a deletion."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.errors import StoreError
from m3rag.output import M3Output
from m3rag.server import create_app
from m3rag.server.attempts import Attempts
from m3rag.server.engine import Engine
from m3rag.server.jobs import DELETED
from m3rag.server.uploads import Uploads
from m3rag.settings import ServeSettings
from m3rag.testing import HashEncoder

from ..reading.pdfs import pdf
from .serving import WAIT_S, base, client_of, ended, uploaded
from .test_documents import files, ids


class Gate(HashEncoder):
    """An encoder that waits, while it is closed, until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        if texts and not self.go_on.is_set():
            self.at_work.set()
            assert self.go_on.wait(WAIT_S)
        return super().encode_documents(texts)


async def sent(client: httpx.AsyncClient, name: str, content: bytes) -> str:
    """The id of an upload's job, which need not have begun."""
    response = await client.post("/api/documents", files=[("files", (name, content))])
    job_id: str = response.json()["jobs"][0]["id"]
    return job_id


async def at_work(client: httpx.AsyncClient, gate: Gate, name: str, content: bytes) -> str:
    """The id of an upload's job that waits at the gate."""
    gate.go_on.clear()
    job_id = await sent(client, name, content)
    assert await asyncio.to_thread(gate.at_work.wait, WAIT_S)
    return job_id


async def deleted(client: httpx.AsyncClient, name: str) -> int:
    return (await client.delete("/api/documents", params={"document_id": name})).status_code


async def text_of(client: httpx.AsyncClient, name: str) -> str:
    text: str = (await client.get("/api/source", params={"document_id": name})).json()["text"]
    return text


async def after_a_restart(path: Path) -> tuple[dict[str, str], KnowledgeBase]:
    """The texts of all documents after the next start, when the uploads left behind are done."""
    kb = base(path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        for job in (await client.get("/api/documents")).json()["jobs"]:
            await ended(client, job["id"])
        return {name: await text_of(client, name) for name in await ids(client)}, kb


async def test_what_is_written_while_the_server_ends_is_not_undone_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    app = create_app(base(tmp_path, encoder=gate), ServeSettings())
    jobs = app.state.engine.jobs
    forgive = jobs.attempts.forgive

    def stopping(upload: Path) -> None:
        forgive(upload)
        gate.go_on.set()

    monkeypatch.setattr(jobs.attempts, "forgive", stopping)
    async with client_of(app) as client:
        await uploaded(client, "notes.txt", b"Old words.")
        await at_work(client, gate, "notes.txt", b"New words.")
    texts, kb = await after_a_restart(tmp_path)
    assert texts == {"notes.txt": "New words."}
    assert [path.read_bytes() for path in files(kb)] == [b"New words."]


async def test_an_error_after_the_document_was_written_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    ingest = kb.ingest

    def failing(*arguments: Any, **options: Any) -> object:
        ingest(*arguments, **options)
        raise StoreError("files.sqlite: database or disk is full")

    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Old words.")
        monkeypatch.setattr(kb, "ingest", failing)
        job = await uploaded(client, "notes.txt", b"New words.")
        assert (job["state"], job["message"]) == ("failed", "files.sqlite: database or disk is full")
        assert [path.read_bytes() for path in files(kb)] == [b"New words."]
    texts, kb = await after_a_restart(tmp_path)
    assert texts == {"notes.txt": "New words."}
    assert [path.read_bytes() for path in files(kb)] == [b"New words."]


async def test_an_index_that_cannot_be_asked_leaves_the_file_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(base(tmp_path), ServeSettings())
    intake = app.state.engine.jobs._intake

    def broken(_intake: object, _name: str, _path: Path) -> bool:
        raise StoreError("the index cannot be read")

    async with client_of(app) as client:
        monkeypatch.setattr(type(intake), "made_from", broken)
        assert (await uploaded(client, "broken.txt", b"Ducks."))["state"] == "failed"
        monkeypatch.undo()
        assert (await uploaded(client, "notes.txt", b"Frogs."))["state"] == "done"
    texts, kb = await after_a_restart(tmp_path)
    assert texts == {"broken.txt": "Ducks.", "notes.txt": "Frogs."}
    assert sorted(path.name for path in files(kb)) == ["broken.txt", "notes.txt"]


async def test_a_slow_pass_that_the_end_of_the_server_cuts_off_goes_on_with_the_next_start(tmp_path: Path) -> None:
    gate = Gate()
    kb = base(tmp_path, encoder=gate)
    app = create_app(kb, ServeSettings())
    jobs = app.state.engine.jobs
    stop = jobs.stop
    jobs.stop = lambda: stop(seconds=0.05)
    async with client_of(app) as client:
        await at_work(client, gate, "notes.txt", b"Ducks swim.")
    gate.go_on.set()
    await asyncio.to_thread(jobs._thread.join, WAIT_S)
    assert not jobs._thread.is_alive()
    assert kb._store is None  # not opened again: nobody would close it
    assert [job["state"] for job in jobs.all()] == ["reading"]
    assert [path.name for path in jobs.uploads.named("notes.txt")] == ["notes.txt"]
    texts, _ = await after_a_restart(tmp_path)
    assert texts == {"notes.txt": "Ducks swim."}


async def test_what_is_written_as_the_server_ends_opens_no_index_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    app = create_app(kb, ServeSettings())
    jobs = app.state.engine.jobs
    stop = jobs.stop
    jobs.stop = lambda: stop(seconds=0.05)
    written, go_on = threading.Event(), threading.Event()
    ingest = kb.ingest

    def slow(*arguments: Any, **options: Any) -> object:
        report = ingest(*arguments, **options)
        written.set()
        assert go_on.wait(WAIT_S)
        return report

    monkeypatch.setattr(kb, "ingest", slow)
    async with client_of(app) as client:
        await sent(client, "notes.txt", b"Ducks swim.")
        assert await asyncio.to_thread(written.wait, WAIT_S)
    go_on.set()
    await asyncio.to_thread(jobs._thread.join, WAIT_S)
    assert not jobs._thread.is_alive()
    assert kb._store is None
    texts, kb = await after_a_restart(tmp_path)
    assert texts == {"notes.txt": "Ducks swim."}
    assert [path.name for path in files(kb)] == ["notes.txt"]


async def test_what_is_deleted_as_the_server_is_killed_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    data, then = tmp_path / "index-data", tmp_path / "then"
    remove = kb.remove

    def killed(document_ids: Sequence[str]) -> int:
        count = remove(document_ids)
        shutil.copytree(data, then)
        return count

    monkeypatch.setattr(kb, "remove", killed)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        assert await deleted(client, "notes.txt") == 204
    shutil.rmtree(data)
    then.rename(data)
    texts, kb = await after_a_restart(tmp_path)
    assert texts == {}
    assert files(kb) == []


async def test_a_deletion_that_fails_leaves_the_file_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)

    def failing(*_arguments: object) -> int:
        raise StoreError("the index cannot be written")

    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        there = files(kb)
        monkeypatch.setattr(kb, "remove", failing)
        assert await deleted(client, "notes.txt") == 503
        monkeypatch.undo()
        assert files(kb) == there
        monkeypatch.setattr(os, "replace", denied)
        response = await client.delete("/api/documents", params={"document_id": "notes.txt"})
        monkeypatch.undo()
        assert response.status_code == 503
        assert response.json()["error"]["message"] == "the file of notes.txt cannot be removed (in use)"
        assert files(kb) == there
        assert await ids(client) == ["notes.txt"]


def denied(*_arguments: object, **_options: object) -> None:
    raise PermissionError(13, "in use")


@pytest.mark.parametrize("content", [b"Ducks swim.", b""])  # which is unchanged, and cannot be read
async def test_what_is_deleted_before_the_old_file_comes_back_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    kb = base(tmp_path)
    app = create_app(kb, ServeSettings())
    engine: Engine = app.state.engine
    set_aside = Uploads.set_aside

    def slow(uploads: Uploads, path: Path) -> Callable[[bool], None]:
        end = set_aside(uploads, path)

        def deleting(back: bool) -> None:
            monkeypatch.undo()
            engine.remove("notes.txt")
            end(back)

        return deleting

    async with client_of(app) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        monkeypatch.setattr(Uploads, "set_aside", slow)
        await uploaded(client, "notes.txt", content)
        assert await ids(client) == []
        assert files(kb) == []


async def test_what_is_deleted_while_another_version_is_encoded_stays_away(tmp_path: Path) -> None:
    gate = Gate()
    kb = base(tmp_path, encoder=gate)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"First words.")
        job_id = await at_work(client, gate, "notes.txt", b"Second words.")
        assert await deleted(client, "notes.txt") == 204
        gate.go_on.set()
        job = await ended(client, job_id)
        assert (job["state"], job["message"], job["document_id"]) == ("failed", DELETED, None)
        assert await ids(client) == []
    assert files(kb) == []


async def test_a_deletion_covers_the_uploads_of_its_name_that_came_before_it(tmp_path: Path) -> None:
    gate = Gate()
    kb = base(tmp_path, encoder=gate)
    app = create_app(kb, ServeSettings())
    async with client_of(app) as client:
        await uploaded(client, "notes.txt", b"First words.")
        running = await at_work(client, gate, "notes.txt", b"Second words.")
        waiting = [await sent(client, "notes.txt", b"Third words."), await sent(client, "other.txt", b"Others.")]
        assert await deleted(client, "notes.txt") == 204
        assert app.state.engine.uploads.named("notes.txt") == []  # a kill would not bring it back
        waiting.append(await sent(client, "notes.txt", b"Last words."))
        gate.go_on.set()
        jobs = [await ended(client, job) for job in (running, *waiting)]
        assert [job["state"] for job in jobs] == ["failed", "failed", "done", "done"]
        assert [job["message"] for job in jobs] == [DELETED, DELETED, "", ""]
        assert await text_of(client, "notes.txt") == "Last words."
        assert await deleted(client, "notes.txt") == 204
        assert await ids(client) == ["other.txt"]
    assert [path.name for path in files(kb)] == ["other.txt"]


async def test_a_deletion_covers_what_is_written_right_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    kb = base(tmp_path, encoder=gate)
    removed, go_on = threading.Event(), threading.Event()
    remove = kb.remove

    def slow(document_ids: Sequence[str]) -> int:
        count = remove(document_ids)
        removed.set()
        assert go_on.wait(WAIT_S)
        return count

    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"First words.")
        job = await at_work(client, gate, "notes.txt", b"Second words.")
        monkeypatch.setattr(kb, "remove", slow)
        deleting = asyncio.create_task(deleted(client, "notes.txt"))
        assert await asyncio.to_thread(removed.wait, WAIT_S)
        gate.go_on.set()
        assert (await ended(client, job))["state"] == "done"
        go_on.set()
        assert await deleting == 204
        assert await ids(client) == []
    assert files(kb) == []


async def test_pages_are_drawn_while_another_file_of_the_name_is_read(tmp_path: Path) -> None:
    gate = Gate()
    async with client_of(create_app(base(tmp_path, encoder=gate), ServeSettings())) as client:
        await uploaded(client, "notes.pdf", pdf("Ducks swim"))
        job = await at_work(client, gate, "notes.pdf", pdf("Frogs jump"))
        image = await client.get("/api/page/image", params={"document_id": "notes.pdf", "page": 1})
        assert image.status_code == 200
        (document,) = (await client.get("/api/documents")).json()["documents"]
        assert document["has_image"] is True
        gate.go_on.set()
        assert (await ended(client, job))["state"] == "done"


def test_a_file_that_goes_as_it_is_set_aside_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(tmp_path)
    path = uploads.new("notes.txt")
    path.write_text("Ducks swim.")
    replace = os.replace

    def late(here: Path, there: Path) -> None:
        uploads.discard(path)
        replace(here, there)

    monkeypatch.setattr(os, "replace", late)
    end = uploads.set_aside(path)
    monkeypatch.undo()
    end(True)
    assert uploads.named("notes.txt") == []


def test_who_finds_nothing_to_set_aside_drops_nothing(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = uploads.new("notes.txt")
    path.write_text("Ducks swim.")
    first, second = uploads.set_aside(path), uploads.set_aside(path)
    second(False)
    first(True)
    assert uploads.named("notes.txt") == [path]


async def test_uploads_below_a_link_are_known_again(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    data = tmp_path / "link"
    try:
        data.symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    async with client_of(create_app(base(tmp_path), ServeSettings(data=data))) as client:
        assert (await uploaded(client, "notes.txt", b"Old words."))["state"] == "done"
        assert (await uploaded(client, "notes.txt", b"New words."))["state"] == "done"
        assert await text_of(client, "notes.txt") == "New words."
    async with client_of(create_app(base(tmp_path), ServeSettings(data=data))) as client:
        assert (await client.get("/api/documents")).json()["jobs"] == []
    assert len(list(data.rglob("notes.txt"))) == 1


async def test_attempts_that_cannot_be_forgotten_do_not_end_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(base(tmp_path), ServeSettings())
    unlink = Path.unlink

    def denied_there(path: Path, **options: bool) -> None:
        if path.parent == app.state.engine.uploads.attempts.folder:
            denied()
        unlink(path, **options)

    async with client_of(app) as client:
        monkeypatch.setattr(Path, "unlink", denied_there)
        job = await uploaded(client, "first.txt", b"First words.")
        monkeypatch.undo()
        assert job["state"] == "done"
        assert (await uploaded(client, "second.txt", b"Second words."))["state"] == "done"
    assert "stays for now" in caplog.text
    await after_a_restart(tmp_path)
    assert list(app.state.engine.uploads.attempts.folder.iterdir()) == []


@pytest.mark.parametrize(("error", "said"), [(FileNotFoundError(2, "gone"), False), (PermissionError(13, "no"), True)])
def test_an_attempt_that_cannot_be_taken_back_is_no_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: OSError,
    said: bool,
) -> None:
    def truncate(_path: Path, _length: int) -> None:
        raise error

    attempts = Attempts(tmp_path)
    upload = tmp_path / "0f3a" / "notes.txt"
    attempts.begin(upload)
    monkeypatch.setattr(os, "truncate", truncate)
    attempts.forgive(upload)
    assert attempts.of(upload) == 1
    assert ("counts" in caplog.text) is said


def test_the_index_is_closed_although_the_queue_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(base(tmp_path), ServeSettings())
    closed: list[bool] = []
    monkeypatch.setattr(engine.jobs, "stop", denied)
    monkeypatch.setattr(engine.kb, "close", lambda: closed.append(True))
    with pytest.raises(PermissionError):
        engine.close()
    assert closed == [True]
