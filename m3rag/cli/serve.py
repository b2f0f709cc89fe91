"""`m3rag serve`: the server with the page, REST, OpenAI's protocol and MCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3rag.cli.console import command, note
from m3rag.cli.options import Debug, Index, Mode, Model, path_of

Host = Annotated[
    str | None,
    typer.Option(
        envvar="M3RAG_SERVE__HOST",
        help="Address to listen on; any but this machine's own needs --api-key.",
        show_default="127.0.0.1",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        "-p",
        min=0,
        max=65535,
        envvar="M3RAG_SERVE__PORT",
        help="0 takes a free one.",
        show_default="8000",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="M3RAG_SERVE__API_KEY",
        show_envvar=True,
        show_default=False,
        help="What requests must bring; better in the environment than in the list of processes.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        help="A name that it is reached by, such as a proxy's; in M3RAG_SERVE__ALLOWED_HOSTS with commas between.",
    ),
]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        help="Address or network of a proxy whose X-Forwarded-For says who asks; in M3RAG_SERVE__TRUSTED_PROXIES "
        "with commas between.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        parser=path_of,
        metavar="PATH",
        envvar="M3RAG_SERVE__DATA",
        help="Folder of uploads and feedback; beside the index by default.",
    ),
]


@command
def serve(
    host: Host = None,
    port: Port = None,
    index: Index = None,
    model: Model = None,
    mode: Mode = None,
    api_key: ApiKey = None,
    allowed_hosts: AllowedHosts = None,
    trusted_proxies: TrustedProxies = None,
    max_upload_mb: Annotated[
        float | None,
        typer.Option(envvar="M3RAG_SERVE__MAX_UPLOAD_MB", help="Most megabytes of one upload.", show_default="100"),
    ] = None,
    rate_limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="M3RAG_SERVE__RATE_LIMIT",
            help="Most requests of one client in a minute; 0: any.",
            show_default="1200",
        ),
    ] = None,
    data: Data = None,
    debug: Debug = False,
) -> None:
    """Serve the page and the API of an index."""
    given = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "allowed_hosts": tuple(allowed_hosts) if allowed_hosts else None,
        "trusted_proxies": tuple(trusted_proxies) if trusted_proxies else None,
        "max_upload_mb": max_upload_mb,
        "rate_limit": rate_limit,
        "data": data,
    }
    run({"index": index, "model": model, "mode": mode}, given)


def run(general: dict[str, Any], given: dict[str, Any], *, path: str = "/") -> None:
    """Serve until told to end.

    Args:
        general: Settings of m3rag; None is left out.
        given: Settings of the server; likewise.
        path: What a person is told to open.
    """
    from m3rag.server.run import check, opened, require_app, serve
    from m3rag.settings import load_settings
    from m3rag.store.place import place_of

    nested = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(**general, serve=nested or None)
    check(settings.serve)
    require_app()
    note(f"Opening the index {place_of(settings.index)} ...")  # which refuses an address with a password
    with opened(settings) as kb:
        serve(kb, settings.serve, ready=lambda address: note(f"{address}{path}   (Ctrl-C ends it)"))
