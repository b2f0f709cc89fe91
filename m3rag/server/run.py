"""Run the server until it is told to end."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from m3rag._lazy import require_extra
from m3rag.errors import ConfigurationError
from m3rag.server.hosts import is_loopback
from m3rag.settings import ServeSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3rag.knowledge_base import KnowledgeBase

CACHE_BYTES = 64 << 20


def check(settings: ServeSettings) -> None:
    """Refuse to open the documents to a network without a key.

    Raises:
        ConfigurationError: If the address is not this machine's own and there is no key.
    """
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if key is not None and not (key and key == key.strip() and key.isascii() and key.isprintable()):
        raise ConfigurationError(
            "serve.api_key must be printable ASCII without blanks at its ends, and not empty, since it goes in a header"
        )
    if key is None and not is_loopback(settings.host):
        raise ConfigurationError(
            f"serve.host {settings.host} can be reached from other machines, and there is no key: set serve.api_key "
            "(M3RAG_SERVE__API_KEY), or listen on 127.0.0.1"
        )


def require_app() -> None:
    """Say early that the extra `app` is missing: before a model is loaded.

    Raises:
        ImportError: If it is not installed.
    """
    require_extra("m3rag serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="app")


def require_mcp() -> None:
    """As `require_app`, for the extra `mcp`.

    Raises:
        ImportError: If it is not installed.
    """
    require_extra("m3rag mcp", "mcp.server.mcpserver", "fastapi", extra="mcp")


def opened(settings: Settings) -> KnowledgeBase:
    """The knowledge base of a server: its model is loaded before the first question.

    A question is encoded once, though search, answer and highlights all ask for it: what was encoded in
    the last minute is kept.

    Raises:
        M3RagError: If index, model and settings do not go together; there is nothing to serve then.
    """
    from m3rag.encoder import CachedEncoder, MemoryCache  # noqa: PLC0415
    from m3rag.knowledge_base import KnowledgeBase  # noqa: PLC0415
    from m3rag.scoring import Weights  # noqa: PLC0415

    with KnowledgeBase(settings=settings) as first:
        mode = first.mode
        Weights.parse(settings.weights, legs=mode.legs)
        encoder = first.encoder
        mode.check(encoder.info)
    return KnowledgeBase(settings=settings, encoder=CachedEncoder(encoder, MemoryCache(max_bytes=CACHE_BYTES)))


def serve(
    knowledge_base: KnowledgeBase, settings: ServeSettings, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or Ctrl-C; the knowledge base is closed then.

    Args:
        knowledge_base: What is served.
        settings: Where, and who may ask.
        ready: Called with the address when requests are taken.

    Raises:
        ConfigurationError: As `check`; or if the address cannot be listened on.
        ImportError: If the extra `app` is not installed.
    """
    check(settings)
    require_app()
    import uvicorn  # noqa: PLC0415

    from m3rag.server.app import create_app  # noqa: PLC0415
    from m3rag.server.connections import config_of  # noqa: PLC0415

    sock = _listening(settings)
    if ready is not None:
        host, port = sock.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with sock:
        config = config_of(create_app(knowledge_base, settings), trusted_proxies=settings.trusted_proxies)
        uvicorn.Server(config).run(sockets=[sock])


def _listening(settings: ServeSettings) -> socket.socket:
    """A socket that takes connections from now on: what comes before the server is up waits for it."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address there
        raise ConfigurationError(
            f"cannot listen on {settings.host}, port {settings.port} ({reason}): choose another serve.host or "
            "serve.port (0 takes a free one)"
        ) from error
