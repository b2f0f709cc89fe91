"""Who may ask, how much, and what every response says: around all routes, before anything is read."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3rag.server.errors import Refused, response_of
from m3rag.server.hosts import LOOPBACK, is_address, is_loopback, name_of
from m3rag.server.rates import RateLimit

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

JSON_BYTES = 4 << 20
"""Most bytes of a request's body that is no upload."""

FORM_BYTES = 1 << 16
"""What a multipart form needs around its files."""

SILENCE_S = 30.0
"""Seconds for which a client may leave a body unfinished without sending any of it."""

UPLOADS = ("/api/documents",)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is let in.

    Attributes:
        host: Address the server listens on.
        api_key: What requests must bring; None for nothing.
        allowed_hosts: Names it is reached by, beside this machine's own and addresses.
        upload_bytes: Most bytes of one upload.
    """

    host: str
    api_key: str | None = field(repr=False)
    allowed_hosts: Collection[str]
    upload_bytes: int

    def check_site(self, scope: Scope, headers: Headers) -> None:
        """Refuse what the page of another site sends.

        Raises:
            Refused: 400 for a foreign Host, 403 for a foreign Origin.
        """
        self._check_host(headers)
        self._check_origin(scope, headers)

    def check_key(self, scope: Scope, headers: Headers) -> None:
        """Refuse who does not bring the key.

        Raises:
            Refused: 401.
        """
        if self.api_key is not None and not is_open(scope["path"]) and not self._has_key(headers):
            raise Refused(
                401,
                "this server asks for an API key",
                "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
                headers={"www-authenticate": "Bearer"},
            )

    def most_bytes(self, path: str) -> int:
        """How long a request's body may be."""
        return self.upload_bytes + FORM_BYTES if path in UPLOADS else JSON_BYTES

    def _check_host(self, headers: Headers) -> None:
        # A page whose name resolves to this machine (DNS rebinding) is foreign, whatever it asks for.
        if len(headers.getlist("host")) == 1:
            name = name_of(headers["host"])
            if name in LOOPBACK or name == self.host.lower() or name in {one.lower() for one in self.allowed_hosts}:
                return
            if not is_loopback(self.host) and is_address(name):
                return
        raise Refused(
            400,
            "this server is not known by the name in the Host header",
            "Reach it by localhost or its address, or add the name to the setting serve.allowed_hosts.",
        )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, rest = origin.partition("://")
            if scheme in ("http", "https") and rest.lower() == headers["host"].lower():
                return
        elif headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none") or _is_link(scope, headers):
            return
        raise Refused(
            403, "a page of another site may not use this server", "Open the page that the server itself has."
        )

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Both in constant time for whatever is given, which headers hold as Latin-1.
        return hmac.compare_digest(given.encode("latin-1"), (self.api_key or "").encode("utf-8"))


def is_open(path: str) -> bool:
    """Whether an address is for everybody: the page itself, which asks for the key, and the health check."""
    return path in ("/", "/health", "/favicon.ico") or path.startswith("/static/")


class Guard:
    """ASGI middleware: checks each request by a policy, counts and bounds its body, and adds the headers."""

    def __init__(self, app: ASGIApp, *, policy: Policy, rates: RateLimit) -> None:
        self.app = app
        self.policy = policy
        self.rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no route speaks WebSocket
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message, scope["path"])
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._admit(scope, headers)
            await self.app(scope, _bounded(receive, self.policy.most_bytes(scope["path"])), sent)
        except asyncio.CancelledError:
            if started:
                raise
            ended = Refused(503, "the server has ended before it could answer", "Ask again when it is back.")
            await response_of(ended, scope["path"])(scope, receive, sent)
        except Exception as error:  # noqa: BLE001 - the last place where an error can become a response
            if started:
                response_of(error)  # writes it to the log; the client sees the stream end
                raise _Ended from None
            await response_of(error, scope["path"])(scope, receive, sent)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        # First, so that no page of another site can use up what the user may ask in a minute.
        self.policy.check_site(scope, headers)
        if not is_open(scope["path"]):
            client = scope.get("client")
            wait = math.ceil(self.rates.wait(client[0] if client else "", time.monotonic()))
            if wait:
                raise Refused(
                    429,
                    f"more than {self.rates.per_minute} requests in a minute",
                    f"Wait {wait} s, or raise the setting serve.rate_limit.",
                    headers={"retry-after": str(wait)},
                )
        self.policy.check_key(scope, headers)
        length = headers.get("content-length", "")
        if length and "transfer-encoding" in headers:  # a proxy before this server may have believed the other one
            raise Refused(400, "the request tells two lengths of its body", "Send one of both headers.")
        if length.isdecimal() and int(length[:20]) > self.policy.most_bytes(scope["path"]):
            raise _too_large(self.policy.most_bytes(scope["path"]))


class _Ended(Exception):
    """A response broke off."""


def _bounded(receive: Receive, most: int) -> Receive:
    """`receive` that ends a body beyond so many bytes, or that does not come."""
    taken = 0
    more = True

    async def bounded() -> Message:
        nonlocal taken, more
        if not more:  # only the end of the connection can come: with a stream, after hours
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), SILENCE_S)
        except TimeoutError:
            raise HTTPException(408, f"nothing of the request came for {SILENCE_S:g} s") from None
        more = bool(message.get("more_body"))
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > most:
                error = _too_large(most)
                # As FastAPI's own kind of error, which it lets pass where it reads a body.
                raise HTTPException(413, error.message) from error
        return message

    return bounded


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        f"the request is larger than the {most / 1e6:,.1f} MB this address takes",
        "Send less at once; for uploads the setting is serve.max_upload_mb.",
    )


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(raw=message.setdefault("headers", []))
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    # The page's files have an ETag: a browser asks whether its own are still those of this version.
    headers.setdefault("cache-control", "no-cache" if path.startswith("/static/") else "no-store")


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Whether somebody followed a link of another site to the page; nothing of a user's can be seen by that site."""
    return bool(scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and is_open(scope["path"]))
