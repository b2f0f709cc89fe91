"""Uploads, deletions and searches at the same time, and what an earlier run has left."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from m3rag.server import create_app
from m3rag.server.attempts import MOST_ATTEMPTS
from m3rag.server.jobs import DELETED
from m3rag.server.uploads import PARTIAL, Uploads
from m3rag.settings import ServeSettings

from .serving import WAIT_S, base, client_of, ended, uploaded
from .test_documents import files, ids


async def test_what_is_deleted_while_it_is_replaced_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb = base(tmp_path)
    at_work, go_on = threading.Event(), threading.Event()
    ingest = kb.ingest

    def slow(*arguments: object, **options: object) -> object:
        at_work.set()
        assert go_on.wait(WAIT_S)
        return ingest(*arguments, **options)  # type: ignore[arg-type]

    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        monkeypatch.setattr(kb, "ingest", slow)
        (job,) = (await client.post("/api/documents", files=[("files", ("notes.txt", b""))])).json()["jobs"]
        assert await asyncio.to_thread(at_work.wait, WAIT_S)
        deleted = await client.delete("/api/documents", params={"document_id": "notes.txt"})
        assert deleted.status_code == 204
        go_on.set()
        assert (await ended(client, job["id"]))["state"] == "failed"
        assert await ids(client) == []
    assert files(kb) == []


async def test_what_is_deleted_as_soon_as_it_is_written_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    at_work, go_on = threading.Event(), threading.Event()
    ingest = kb.ingest

    def slow(*arguments: object, **options: object) -> object:
        report = ingest(*arguments, **options)  # type: ignore[arg-type]
        at_work.set()
        assert go_on.wait(WAIT_S)
        return report

    monkeypatch.setattr(kb, "ingest", slow)
    async with client_of(create_app(kb, ServeSettings())) as client:
        (job,) = (await client.post("/api/documents", files=[("files", ("notes.txt", b"Ducks."))])).json()["jobs"]
        assert await asyncio.to_thread(at_work.wait, WAIT_S)
        assert (await client.delete("/api/documents", params={"document_id": "notes.txt"})).status_code == 204
        go_on.set()
        await ended(client, job["id"])
        assert await ids(client) == []
    assert files(kb) == []


async def test_what_is_replaced_while_it_is_deleted_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    at_work, go_on = threading.Event(), threading.Event()
    remove = kb.remove

    def slow(document_ids: Sequence[str]) -> int:
        at_work.set()
        assert go_on.wait(WAIT_S)
        return remove(document_ids)

    monkeypatch.setattr(kb, "remove", slow)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        await uploaded(client, "other.txt", b"Frogs jump.")
        deleting = asyncio.create_task(client.delete("/api/documents", params={"document_id": "notes.txt"}))
        assert await asyncio.to_thread(at_work.wait, WAIT_S)
        assert (await uploaded(client, "notes.txt", b"Ducks dive."))["state"] == "done"
        go_on.set()
        assert (await deleting).status_code == 204
        assert await ids(client) == ["other.txt"]
    assert [path.name for path in files(kb)] == ["other.txt"]


async def test_what_is_uploaded_while_its_name_is_deleted_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    removed, go_on = threading.Event(), threading.Event()
    remove = kb.remove

    def slow(document_ids: Sequence[str]) -> int:
        count = remove(document_ids)
        removed.set()
        assert go_on.wait(WAIT_S)
        return count

    monkeypatch.setattr(kb, "remove", slow)
    async with client_of(create_app(kb, ServeSettings())) as client:
        await uploaded(client, "notes.txt", b"Ducks swim.")
        deleting = asyncio.create_task(client.delete("/api/documents", params={"document_id": "notes.txt"}))
        assert await asyncio.to_thread(removed.wait, WAIT_S)
        assert (await uploaded(client, "notes.txt", b"Ducks dive."))["state"] == "done"
        go_on.set()
        assert (await deleting).status_code == 204
        assert await ids(client) == ["notes.txt"]
    assert [path.read_bytes() for path in files(kb)] == [b"Ducks dive."]


async def test_what_is_put_in_its_place_while_its_name_is_deleted_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    app = create_app(kb, ServeSettings())
    removing = threading.Thread(target=lambda: app.state.engine.jobs.removed("notes.txt"))
    replace = Path.replace

    def slow(path: Path, target: Path) -> Path:
        placed = replace(path, target)
        if path.name == PARTIAL:
            removing.start()
            removing.join(0.2)
        return placed

    monkeypatch.setattr(Path, "replace", slow)
    async with client_of(app) as client:
        assert (await uploaded(client, "notes.txt", b"Ducks swim."))["state"] == "done"
        removing.join(WAIT_S)
        assert await ids(client) == ["notes.txt"]
    assert [path.read_bytes() for path in files(kb)] == [b"Ducks swim."]


def test_an_upload_that_goes_while_all_are_listed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(tmp_path)
    going, staying = uploads.new("notes.txt"), uploads.new("notes.txt")
    for path in (going, staying):
        path.write_text("Ducks swim.")
    (uploads.files / "notes.txt").write_text("No upload: somebody put it there.")
    scandir = os.scandir

    def late(folder: str) -> object:
        if Path(folder) == going.parent:
            going.parent.rename(tmp_path / "gone")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", late)
    assert uploads.named("notes.txt") == [staying]


async def test_an_upload_right_after_the_start_is_not_taken_for_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    recover = Uploads.recover

    def slow(uploads: Uploads, sources: Sequence[str]) -> list[Path]:
        time.sleep(0.3)
        return recover(uploads, sources)

    monkeypatch.setattr(Uploads, "recover", slow)
    async with client_of(create_app(kb, ServeSettings())) as client:
        assert (await uploaded(client, "first.txt", b"First words."))["state"] == "done"
        await uploaded(client, "second.txt", b"Second words.")
        assert len((await client.get("/api/documents")).json()["jobs"]) == 2
    assert sorted(path.name for path in files(kb)) == ["first.txt", "second.txt"]


async def test_a_queue_that_is_full_at_the_start_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kb = base(tmp_path)
    waiting = Uploads(tmp_path / "index-data").new("waiting.txt")
    waiting.write_text("Still waiting.")
    monkeypatch.setattr("m3rag.server.jobs.MOST_WAITING", 0)
    async with client_of(create_app(kb, ServeSettings())) as client:
        until = time.monotonic() + WAIT_S
        while "next start" not in caplog.text and time.monotonic() < until:
            await asyncio.sleep(0.01)
        monkeypatch.undo()
        assert (await uploaded(client, "new.txt", b"New."))["state"] == "done"
    assert waiting.exists()


def test_of_one_name_the_last_upload_wins_after_a_restart(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    paths = sorted((uploads.new("a.txt") for _ in range(5)), reverse=True)
    for second, path in enumerate(paths):
        path.write_text("a")
        os.utime(path, (second, second))
    assert uploads.recover([]) == paths


@pytest.mark.parametrize("roomy", [0, 1, 2])
async def test_a_disk_that_gets_full_fails_the_upload_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: int
) -> None:
    kb = base(tmp_path)
    asked = 0

    def usage(path: Path) -> SimpleNamespace:
        nonlocal asked
        asked += 1
        return SimpleNamespace(free=1_000_000 if asked > roomy else 1 << 40)

    async with client_of(create_app(kb, ServeSettings())) as client:
        assert (await uploaded(client, "old.txt", b"Old words."))["state"] == "done"
        monkeypatch.setattr("m3rag.store.edge_folder.shutil.disk_usage", usage)
        content = "".join(f"Duck {n} swims in pond {n}. " for n in range(5_000)).encode()
        job = await uploaded(client, "new.txt", content)
        assert job["state"] == "failed"
        assert re.match(r"the disk of the index \w+ has only 1 MB left.* free 134 MB", job["message"])
        assert asked > roomy
        assert await ids(client) == ["old.txt"]
        monkeypatch.undo()
        assert (await uploaded(client, "new.txt", b"New words."))["state"] == "done"
    assert sorted(path.name for path in files(kb)) == ["new.txt", "old.txt"]


async def test_everything_at_once_leaves_files_and_index_in_step(tmp_path: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings(rate_limit=0))) as client:
        jobs: list[str] = []

        async def upload(number: int) -> int:
            content = f"Ducks swim in pond {number}.".encode()
            response = await client.post("/api/documents", files=[("files", (f"{number % 3}.txt", content))])
            jobs.extend(job["id"] for job in response.json()["jobs"])
            return response.status_code

        async def delete(number: int) -> int:
            return (await client.delete("/api/documents", params={"document_id": f"{number % 3}.txt"})).status_code

        async def search(number: int) -> int:
            return (await client.post("/api/search", json={"query": f"ducks {number}", "explain": True})).status_code

        async def ask(number: int) -> int:
            response = await client.post("/api/ask", json={"question": f"Where do ducks swim {number}?"})
            assert "event: done" in response.text, response.text
            return response.status_code

        async def look(number: int) -> int:
            return (await client.get("/api/source", params={"document_id": f"{number % 3}.txt"})).status_code

        for start in range(0, 18, 6):
            rounds = [one(n) for n in range(start, start + 6) for one in (upload, delete, search, ask, look, upload)]
            statuses = await asyncio.gather(*rounds)
            assert set(statuses) <= {200, 202, 204, 404}
        for job in jobs:
            one = await ended(client, job)
            assert one["state"] in ("done", "unchanged") or one["message"] == DELETED
        assert await uploaded(client, "0.txt", b"Last words.")
        there = await ids(client)
        assert "0.txt" in there
        assert sorted(path.name for path in files(kb)) == there


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """An upload that was begun as often as is allowed."""
    uploads = Uploads(tmp_path / "index-data")
    path = uploads.new("held.txt")
    path.write_text("Ducks swim.")
    for _ in range(MOST_ATTEMPTS):
        uploads.attempts.begin(path)
    return path


async def test_what_is_held_is_removed_for_good(tmp_path: Path, held: Path) -> None:
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        (job,) = (await client.get("/api/documents")).json()["jobs"]
        assert job["can_retry"]
        assert held.exists()
        assert (await client.delete(f"/api/jobs/{job['id']}")).status_code == 204
        assert (await client.delete(f"/api/jobs/{job['id']}")).status_code == 404
        assert (await client.post(f"/api/jobs/{job['id']}/retry")).status_code == 404
        assert (await client.get("/api/documents")).json() == {"documents": [], "jobs": []}
    assert not held.parent.exists()


async def test_a_new_upload_replaces_what_is_held(tmp_path: Path, held: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        assert (await uploaded(client, "held.txt", b"Frogs jump."))["state"] == "done"
        (job,) = (await client.get("/api/documents")).json()["jobs"]
        assert job["state"] == "done"
    assert len(files(kb)) == 1
    assert files(kb) != [held]


async def test_an_attempt_that_the_end_of_the_server_cut_off_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = base(tmp_path)
    at_work, go_on = threading.Event(), threading.Event()
    ingest = kb.ingest

    def slow(*arguments: object, **options: object) -> object:
        at_work.set()
        assert go_on.wait(WAIT_S)
        return ingest(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(kb, "ingest", slow)
    app = create_app(kb, ServeSettings())
    attempts = app.state.engine.uploads.attempts
    async with client_of(app) as client:
        (job,) = (await client.post("/api/documents", files=[("files", ("notes.txt", b"Ducks."))])).json()["jobs"]
        assert await asyncio.to_thread(at_work.wait, WAIT_S)
        assert (await client.delete(f"/api/jobs/{job['id']}")).status_code == 409
        (path,) = app.state.engine.uploads.named("notes.txt")
        assert attempts.of(path) == 1
        stopping = threading.Thread(target=app.state.engine.jobs.stop)
        stopping.start()
        until = time.monotonic() + WAIT_S
        while attempts.of(path) and time.monotonic() < until:
            time.sleep(0.01)
        assert attempts.of(path) == 0
        go_on.set()
        await asyncio.to_thread(stopping.join)
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        (job,) = (await client.get("/api/documents")).json()["jobs"]
        assert (await ended(client, job["id"]))["state"] == "done"
