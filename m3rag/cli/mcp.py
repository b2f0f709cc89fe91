"""`m3rag mcp`: search, ask and list as tools of the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from m3rag.cli.console import command
from m3rag.cli.options import Debug, Index, Mode, Model
from m3rag.cli.serve import ApiKey, Host, Port


@command
def mcp(
    http: Annotated[bool, typer.Option("--http", help="Over HTTP at /mcp (that of `m3rag serve`), not stdio.")] = False,
    host: Host = None,
    port: Port = None,
    index: Index = None,
    model: Model = None,
    mode: Mode = None,
    api_key: ApiKey = None,
    debug: Debug = False,
) -> None:
    """Give an assistant the tools search, ask and list."""
    from m3rag.cli.serve import run
    from m3rag.server.run import require_mcp

    require_mcp()
    general = {"index": index, "model": model, "mode": mode}
    if http:
        run(general, {"host": host, "port": port, "api_key": api_key}, path="/mcp")
        return
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.server.engine import Engine
    from m3rag.server.mcp import mcp_server, serve_stdio
    from m3rag.settings import load_settings

    settings = load_settings(**general)
    with KnowledgeBase(settings=settings) as kb:
        serve_stdio(mcp_server(Engine(kb, settings.serve)))
