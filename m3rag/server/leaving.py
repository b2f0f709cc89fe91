"""Requests whose client may leave: the work for an answer that nobody waits for is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

GONE = 499
"""The status that metrics show for a client that did not wait for its answer, as nginx has it."""


class EndsWithClient(APIRoute):
    """A route that is cancelled when its client goes away before the response begins.

    Its request's body is read into memory first, so that it is none for uploads. A response that is a stream
    sees to its own end.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, as a task that ends with the client."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                await request.body()  # what comes after it can only be the end of the connection
            except ClientDisconnect:
                return Response(status_code=GONE)
            work = asyncio.ensure_future(handle(request))
            left = asyncio.ensure_future(_left(request))
            try:
                await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
                return work.result() if work.done() else Response(status_code=GONE)
            finally:
                work.cancel()
                left.cancel()
                await asyncio.gather(work, left, return_exceptions=True)

        return handled


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
