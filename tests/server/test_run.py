"""The commands: where they listen, what they refuse, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from m3rag.cli.mcp import mcp
from m3rag.cli.serve import serve
from m3rag.errors import ConfigurationError
from m3rag.server import create_app
from m3rag.server.run import check
from m3rag.server.uploads import Uploads
from m3rag.settings import ServeSettings
from m3rag.types import Chunk

from .serving import WAIT_S, base, client_of, ended

SERVER = """
import sys, typer
sys.path.insert(0, {tests!r})
from pathlib import Path
from m3rag.cli.console import command
from m3rag.server.run import serve
from m3rag.settings import ServeSettings
from m3rag.types import Chunk
from server.serving import base
from server.test_ask import Endless

@command
def main() -> None:
    kb = base(Path({path!r}), llm=Endless())
    serve(kb, ServeSettings(port=0), ready=lambda url: print(url, flush=True))

typer.run(main)
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without a signal")


def invoke(function: Callable[..., None], *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(function)
    result = CliRunner().invoke(app, arguments, env={"M3RAG_INDEX": "nowhere"})
    return result.exit_code, result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
@pytest.mark.parametrize("arguments", [[], ["--http"]])
def test_no_other_machine_is_let_in_without_a_key(host: str, arguments: list[str]) -> None:
    code, output = invoke(mcp if arguments else serve, "--host", host, *arguments)
    assert code == 3
    assert "serve.api_key" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("key", ["", "  ", "schlüssel", "key\n", " key", "key\t", "k\x07ey", "k\x7fey"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key"):
        check(ServeSettings.model_validate({"api_key": key}))


def test_a_key_opens_the_address() -> None:
    check(ServeSettings.model_validate({"host": "0.0.0.0", "api_key": "key"}))
    check(ServeSettings.model_validate({"api_key": "a key!"}))
    check(ServeSettings())


def test_a_port_that_is_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        from m3rag.server.run import serve as run

        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} \(Address already in use\)"):
            run(base(tmp_path), ServeSettings(port=port))


@contextmanager
def running(path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = SERVER.format(tests=str(Path(__file__).parents[1]), path=str(path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=path
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


@posix
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_ends_streams_and_closes_the_index(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "ducks.txt").write_text("Ducks swim in ponds.")
    with base(tmp_path) as kb:
        kb.ingest(source)
    with running(tmp_path) as (process, url), httpx.Client(base_url=url, timeout=WAIT_S) as client:
        assert client.get("/api/status").json()["documents"] == 1
        with client.stream("POST", "/api/ask", json={"question": "Do ducks swim?"}) as response:
            assert any("event: token" in line for line in response.iter_lines())
            os.kill(process.pid, sent)
            assert process.wait(30) == code
        assert process.stderr is not None
        told = process.stderr.read()
    assert "Traceback" not in told
    with base(tmp_path) as kb:
        assert [record.id for record in kb.documents()] == ["ducks.txt"]


def upload(client: httpx.Client, name: str, content: bytes) -> str:
    (job,) = client.post("/api/documents", files=[("files", (name, content))]).json()["jobs"]
    return str(job["id"])


def state(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/api/jobs/{job}").json()["state"])


@posix
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_taken_is_found_after_the_end(tmp_path: Path, sent: signal.Signals) -> None:
    names = [f"{n:02}.txt" for n in range(20)]
    with running(tmp_path) as (process, url), httpx.Client(base_url=url, timeout=WAIT_S) as client:
        jobs = {name: upload(client, name, f"Ducks swim in pond {name}.".encode()) for name in names}
        until = time.monotonic() + WAIT_S
        while state(client, jobs[names[0]]) != "done" and time.monotonic() < until:
            time.sleep(0.01)
        done = [name for name in names if state(client, jobs[name]) == "done"]
        assert done
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as half:
            half.sendall(
                b"POST /api/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
                b'Content-Length: 9000\r\n\r\n--X\r\nContent-Disposition: form-data; name="files"; filename="half.txt"'
                b"\r\n\r\nHalf a file"
            )
            for _ in range(3):  # the loop accepts, reads and answers in turn: it has read the half by then
                client.get("/health").raise_for_status()
            os.kill(process.pid, sent)
            assert process.wait(30) == -sent
            if sent is signal.SIGTERM:
                half.settimeout(WAIT_S)
                assert half.recv(100).startswith(b"HTTP/1.1 503 ")
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    with base(tmp_path) as kb:
        there = {record.id for record in kb.documents()}
        assert set(done) <= there <= set(names)
    with running(tmp_path) as (_, url), httpx.Client(base_url=url, timeout=WAIT_S) as client:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            found = [one["id"] for one in client.get("/api/documents").json()["documents"]]
            if len(found) == len(names):
                break
            time.sleep(0.02)
        assert found == names
    assert sorted(path.name for path in (tmp_path / "index-data").rglob("*.txt")) == names


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--port", "99999"], 2, "port"),
        (["--rate-limit", "-1"], 2, "rate"),
        (["--max-upload-mb", "0"], 3, "serve.max_upload_mb"),
        (["--index", "damaged"], 4, "damaged"),
        (["--index", "new", "--mode", "sideways"], 3, "sideways"),
    ],
)
def test_what_cannot_be_served_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_arguments, **_options: None)
    with base(tmp_path) as kb:
        kb.upsert([Chunk(id="a", document_id="a.txt", text="Ducks.", start=0, end=6)])
    (tmp_path / "index").rename(tmp_path / "damaged")
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    found, output = invoke(serve, "--port", "0", *arguments)
    assert told in output
    assert found == code
    assert "Traceback" not in output


@posix
def test_an_index_that_another_process_holds_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as (_, url), httpx.Client(base_url=url, timeout=WAIT_S) as client:
        job = upload(client, "a.txt", b"Ducks.")
        until = time.monotonic() + WAIT_S
        while state(client, job) != "done" and time.monotonic() < until:
            time.sleep(0.01)
        code, output = invoke(serve, "--port", "0", "--index", str(tmp_path / "index"))
        assert code == 4
        assert "index" in output
        assert client.get("/api/status").json()["documents"] == 1


DEADLY = """
import asyncio, os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from m3rag.server import create_app
from m3rag.settings import ServeSettings
from m3rag.testing import HashEncoder
from server.serving import alive, base

class Deadly(HashEncoder):
    def encode_documents(self, texts):
        if any("deadly" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_documents(texts)

async def main():
    async with alive(create_app(base(Path({path!r}), encoder=Deadly()), ServeSettings())):
        await asyncio.sleep(60)

asyncio.run(main())
"""


@posix
async def test_a_file_over_which_the_server_dies_is_left_after_some_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.server.jobs.MOST_ATTEMPTS", 2)
    uploads = Uploads(tmp_path / "index-data")
    for second, (name, text) in enumerate({"bad.txt": "Some deadly words.", "good.txt": "Ducks swim."}.items()):
        path = uploads.new(name)
        path.write_text(text)
        os.utime(path, (second, second))
    code = DEADLY.format(tests=str(Path(__file__).parents[1]), path=str(tmp_path))
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -signal.SIGKILL
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        (bad, good) = (await client.get("/api/documents")).json()["jobs"]
        assert (bad["name"], bad["state"], bad["can_retry"]) == ("bad.txt", "failed", True)
        assert bad["message"].startswith("bad.txt was begun 2 times")
        assert (await ended(client, good["id"]))["state"] == "done"
        again = await client.post(f"/api/jobs/{bad['id']}/retry")
        assert (again.status_code, again.json()["message"], again.json()["can_retry"]) == (202, "", False)
        assert (await ended(client, bad["id"]))["state"] == "done"  # by an encoder that takes it
        assert (await client.post(f"/api/jobs/{bad['id']}/retry")).status_code == 409
    assert list(uploads.attempts.folder.iterdir()) == []
