"""Connections, before there is a request: how long a client may take to say what it wants, and in how many bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""Seconds for a request's line and headers, which uvicorn itself waits for without end."""

GRACE_S = 3
"""Seconds that running requests have to end by themselves."""


class Connection(H11Protocol):
    """uvicorn's connection, closed when nothing is asked on it."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def handle_events(self) -> None:
        """Wait while the head of a request is due, and not while it is answered."""
        super().handle_events()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the waiting."""
        self._wait(due=False)
        super().connection_lost(exc)

    def _wait(self, *, due: bool = True) -> None:
        if due and self.conn.their_state is h11.IDLE:
            self._late = self._late or self.loop.call_later(HEAD_S, self.transport.close)
        elif self._late is not None:
            self._late.cancel()
            self._late = None


def config_of(app: ASGIApp, *, trusted_proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How uvicorn runs the application; who else names an address as a client's own is not believed."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # as log_level
    return uvicorn.Config(
        app,
        http=Connection,  # h11: the heads that httptools takes have no end
        ws="none",
        log_level="error",  # a warning for each malformed request would let anybody fill the log
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
    )
