"""The commands: where they listen, what they refuse, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
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
from m3rag.server.run import check
from m3rag.settings import ServeSettings

from .serving import WAIT_S, base

SERVER = """
import sys, typer
sys.path.insert(0, {tests!r})
from pathlib import Path
from m3rag.cli.console import command
from m3rag.server.run import serve
from m3rag.settings import ServeSettings
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


@pytest.mark.parametrize("key", ["", "  ", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key"):
        check(ServeSettings.model_validate({"api_key": key}))


def test_a_key_opens_the_address() -> None:
    check(ServeSettings.model_validate({"host": "0.0.0.0", "api_key": "key"}))
    check(ServeSettings())


def test_a_port_that_is_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        from m3rag.server.run import serve as run

        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}"):
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
