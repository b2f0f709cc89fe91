"""The official client of the Model Context Protocol is served, over HTTP and over stdio."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from m3rag.server import create_app
from m3rag.server.engine import Engine
from m3rag.server.mcp import mcp_server
from m3rag.settings import ServeSettings

from .serving import filled, serving

SERVER = """
import sys
from m3rag.server.engine import Engine
from m3rag.server.mcp import mcp_server, serve_stdio
sys.path.insert(0, {tests!r})
from server.serving import filled
kb = filled()
serve_stdio(mcp_server(Engine(kb, kb.settings.serve)))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = ServeSettings(data=tmp_path_factory.mktemp("data"))
    with serving(create_app(filled(), settings)) as server:
        yield f"{server.url}/mcp"


async def used(client: Client) -> None:
    """All tools do what they say."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "ask", "list"}
    assert all(tool.description for tool in tools.values())

    found: Any = (await client.call_tool("search", {"query": "what do ducks eat", "k": 1})).structured_content
    (hit,) = found["hits"]
    assert hit["document_id"] == "ducks.txt"
    assert found["no_hits"] is None

    answer: Any = (await client.call_tool("ask", {"question": "What do ducks eat in ponds?"})).structured_content
    assert answer["answered"] is True
    assert answer["citations"][0]["document_id"] == "ducks.txt"

    listed: Any = (await client.call_tool("list", {})).structured_content
    assert [one["id"] for one in listed["documents"]] == ["ducks.txt", "frogs.txt"]

    for arguments in ({"query": " "}, {"query": "ducks", "k": 0}, {}):
        assert (await client.call_tool("search", arguments)).is_error


async def test_over_http(url: str) -> None:
    async with Client(url) as client:
        await used(client)


async def test_an_error_that_nobody_meant_is_not_told_word_by_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = filled()

    def broken(*_arguments: object) -> None:
        raise RuntimeError("with a password in it")

    with serving(create_app(kb, ServeSettings(data=tmp_path))) as server:
        monkeypatch.setattr(kb, "documents", broken)
        monkeypatch.setattr(kb, "asearch", broken)
        monkeypatch.setattr(kb, "apassages", broken)
        async with Client(f"{server.url}/mcp") as client:
            for tool, arguments in (("list", {}), ("search", {"query": "ducks"}), ("ask", {"question": "ducks?"})):
                result = await client.call_tool(tool, arguments)
                assert result.is_error
                assert "server's log" in str(result.content)
                assert "password" not in str(result.content)


def test_what_others_write_to_the_log_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.root.level
    kb = filled()
    mcp_server(Engine(kb, kb.settings.serve))
    assert logging.root.handlers == []
    assert logging.root.level == level


async def test_over_stdio(tmp_path: Path) -> None:
    code = SERVER.format(tests=str(Path(__file__).parents[1]))
    async with Client(StdioServerParameters(command=sys.executable, args=["-c", code])) as client:
        await used(client)


def test_a_client_that_is_gone_ends_it_quietly() -> None:
    code = SERVER.format(tests=str(Path(__file__).parents[1]))
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "any", "version": "1"}}
    calls: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": client},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "ducks"}}},
    ]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as server:
        assert server.stdin
        assert server.stdout
        assert server.stderr
        server.stdin.write(json.dumps({"jsonrpc": "2.0", **calls[0]}) + "\n")
        server.stdin.flush()
        assert "m3rag" in server.stdout.readline()
        server.stdout.close()
        server.stdin.write("".join(json.dumps({"jsonrpc": "2.0", **call}) + "\n" for call in calls[1:]))
        server.stdin.close()
        assert server.stderr.read() == ""
        assert server.wait(60) == 0
