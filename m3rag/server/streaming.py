"""From a blocking iterator to an event stream that ends its work when nobody listens any more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from fastapi.responses import StreamingResponse

Item = TypeVar("Item")

AHEAD = 256
"""How many pieces may wait for a reader that is slow."""

PING_S = 15.0
"""Seconds of silence after which a comment is sent, so that nothing between takes the stream for dead."""


STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""What a route says of itself that answers with `streamed`."""


class _Failed(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Pump(Generic[Item]):
    """Runs a blocking iterator in a thread of its own, and hands on what it gives.

    When the reader is closed (its client went away), the iterator is closed after the piece that it is
    at: for a language model, that ends its connection.

    Args:
        make: Makes the iterator; called in the thread.
    """

    def __init__(self, make: Callable[[], Iterator[Item]]) -> None:
        self._make = make
        self._stop = threading.Event()
        self._room = threading.Semaphore(AHEAD)

    async def items(self) -> AsyncGenerator[Item]:
        """What the iterator gives; raises what it raises."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Item | _Failed | None] = asyncio.Queue()

        def put(item: Item | _Failed | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(queue.put_nowait, item)

        threading.Thread(target=self._run, args=(put,), name="m3rag-stream", daemon=True).start()
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, _Failed):
                    raise item.error
                self._room.release()
                yield item
        finally:
            self._stop.set()
            self._room.release()

    def _run(self, put: Callable[[Item | _Failed | None], None]) -> None:
        iterator: Iterator[Item] | None = None
        try:
            iterator = self._make()
            for item in iterator:
                self._room.acquire()
                if self._stop.is_set():
                    break
                put(item)
        except BaseException as error:  # noqa: BLE001 - raised where the items are awaited
            put(_Failed(error))
        else:
            put(None)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


def event(name: str, data: dict[str, Any]) -> str:
    """One server-sent event with a JSON object as its data, on one line."""
    return f"event: {name}\ndata: {json_line(data)}\n\n"


def json_line(value: dict[str, Any]) -> str:
    """JSON on one line, which UTF-8 can hold: a language model may write half a surrogate pair."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """The response of some events; a proxy is told not to collect them first."""
    return StreamingResponse(with_pings(events), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def with_pings(events: AsyncIterator[str], *, seconds: float = PING_S) -> AsyncIterator[str]:
    """A stream, with a comment wherever it is silent for so long."""
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=seconds)
            if not done:
                yield ": waiting\n\n"
                continue
            item = waiting.result()
            if item is None:
                return
            yield item
            waiting = asyncio.ensure_future(anext(events, None))
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await waiting
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
