"""Run a producer in a thread of its own, a few items ahead of whoever uses them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")


class _End(Generic[T]):
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def lookahead(items: Iterator[T], *, depth: int = 1) -> Iterator[T]:
    """Yield the items in order while the next ones are being made.

    An error of the producer is raised where its item would have come. Closing the generator (a
    consumer that fails, Ctrl-C) stops the producer after the item at hand.

    Args:
        items: What is made in the thread.
        depth: Most items that wait at a time.
    """
    queue: Queue[T | _End[T]] = Queue(depth)
    closed = threading.Event()

    def put(item: T | _End[T]) -> None:
        while not closed.is_set():
            try:
                queue.put(item, timeout=0.1)
            except Full:
                continue
            return

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, whole
            put(_End(error))
        else:
            put(_End())

    thread = threading.Thread(target=produce, name="m3rag-lookahead", daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        closed.set()
        thread.join()
