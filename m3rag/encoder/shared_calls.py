"""One thread that makes the calls of many callers, those that wait joined into one."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

IDLE_S = 5.0
"""How long an idle thread waits for more before it ends: torch builds a thread pool for each new one."""

EXIT_S = 30.0
"""How long the interpreter's exit waits for a running call: to end inside torch aborts the process."""


@dataclass(frozen=True)
class Call:
    """A method with its options; equal calls may be joined."""

    method: Callable[..., Any]
    options: tuple[tuple[str, object], ...]

    def __call__(self, texts: list[str]) -> Any:
        """What the method gives for the texts: one row each, an array or an M3Output."""
        return self.method(texts, **dict(self.options))


@dataclass(frozen=True, eq=False)
class Request:
    """One caller's texts, and the future that will hold its rows."""

    call: Call
    texts: tuple[str, ...]
    future: Future[Any] = field(default_factory=Future)

    @property
    def chars(self) -> int:
        """Characters of all texts."""
        return sum(map(len, self.texts))


class CallWorker:
    """The thread and its queue.

    It keeps no call alive but those that run or wait, so that an idle thread is no obstacle to the
    collection of an encoder.

    Args:
        max_texts: Most texts of one call, and
        max_chars: most characters of one call, unless one request alone has more.
        max_wait_s: How long an idle thread waits for others to join a first request.
    """

    def __init__(self, *, max_texts: int, max_chars: int, max_wait_s: float) -> None:
        self.pid = os.getpid()
        self._max_texts = max_texts
        self._max_chars = max_chars
        self._max_wait_s = max_wait_s
        # A put into it is reentrant: the garbage collector may call `end` at any moment.
        self._arrived: SimpleQueue[Request | None] = SimpleQueue()
        self._waiting: deque[Request] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._exiting = False
        _WORKERS.add(self)

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn; its future is resolved by the thread.

        Raises:
            RuntimeError: If the interpreter is exiting.
        """
        with self._lock:
            if self._exiting:
                raise RuntimeError("the interpreter is exiting: texts can no longer be encoded")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="m3rag-encode", daemon=True)
                thread.start()
                self._thread = thread
            self._arrived.put(request)

    def end(self) -> None:
        """Let the thread end after the running call; what waits is cancelled."""
        self._arrived.put(None)

    def finish(self) -> None:
        """End, wait for the running call, and take no more requests."""
        with self._lock:
            self._exiting = True
            thread = self._thread
        self.end()
        if thread is not None:
            thread.join(EXIT_S)

    def _run(self) -> None:
        while self._receive():
            _serve(self._take())

    def _receive(self) -> bool:
        """Move what has arrived to what waits; False if the thread is to end."""
        timeout, until = (0.0 if self._waiting else IDLE_S), 0.0
        while True:
            try:
                request = self._arrived.get(timeout=timeout)
            except Empty:
                return bool(self._waiting) or not self._retire()
            if request is None:
                self._cancel_all()
                return False
            if not self._waiting:
                until = time.monotonic() + self._max_wait_s
            self._waiting.append(request)
            timeout = max(until - time.monotonic(), 0.0)

    def _retire(self) -> bool:
        with self._lock:
            if not self._arrived.empty():
                return False
            self._thread = None
            return True

    def _cancel_all(self) -> None:
        with self._lock:
            self._thread = None
            while not self._arrived.empty():
                request = self._arrived.get()
                if request is not None:
                    self._waiting.append(request)
        while self._waiting:
            self._waiting.popleft().future.cancel()

    def _take(self) -> list[Request]:
        """The oldest request, and those that fit into its call."""
        batch: list[Request] = []
        left: deque[Request] = deque()
        texts = chars = 0
        while self._waiting:
            request = self._waiting.popleft()
            fits = texts + len(request.texts) <= self._max_texts and chars + request.chars <= self._max_chars
            if batch and not (fits and request.call == batch[0].call):
                left.append(request)
            elif request.future.set_running_or_notify_cancel():
                batch.append(request)
                texts += len(request.texts)
                chars += request.chars
        self._waiting = left
        return batch


_WORKERS: weakref.WeakSet[CallWorker] = weakref.WeakSet()


@atexit.register
def _finish_workers() -> None:
    for worker in list(_WORKERS):
        if worker.pid == os.getpid():  # a fork has no thread of its parent's, and perhaps a lock held for ever
            worker.finish()


def _serve(batch: Sequence[Request]) -> None:
    if not batch:
        return
    outcome = _attempt(batch)
    if not isinstance(outcome, BaseException):
        for request, rows in zip(batch, outcome, strict=True):
            request.future.set_result(rows)
    elif len(batch) == 1:
        batch[0].future.set_exception(outcome)
    else:  # one of them is guilty: let only that one fail
        for request in batch:
            _serve([request])


def _attempt(batch: Sequence[Request]) -> list[Any] | BaseException:
    """The rows of each request, or what went wrong."""
    call = batch[0].call
    try:
        output = call([text for request in batch for text in request.texts])
        bounds = list(accumulate((len(request.texts) for request in batch), initial=0))
        if len(output) != bounds[-1]:
            raise RuntimeError(f"{call.method} gave {len(output)} rows for {bounds[-1]} texts")
        return [output] if len(batch) == 1 else [_rows(output, a, b) for a, b in pairwise(bounds)]
    except StopIteration as error:  # no future of asyncio takes it: its caller would wait for ever
        stopped = RuntimeError(f"{call.method} raised StopIteration")
        stopped.__cause__ = error
        return stopped
    except BaseException as error:  # noqa: BLE001 - the caller waits in another thread; it is raised there
        return error


def _rows(output: Any, start: int, end: int) -> Any:
    """Rows that keep nothing else of the joined output in memory."""
    if isinstance(output, np.ndarray):
        return output[start:end].copy()
    part = output[start:end]
    return replace(part, colbert=part.colbert.copy()) if part.colbert.base is not None else part
