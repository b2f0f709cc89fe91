"""Over a cache: what is missing is made by one thread, and the others that want it wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from m3rag.encoder.cache import EmbeddingCache


@dataclass(frozen=True, slots=True)
class _Underway:
    """What the threads of one process are making."""

    futures: dict[bytes, Future[bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class SingleFlight:
    """Says of each key whether it is held, ours to make, or being made by another thread.

    A thread must land or release all that is its own before it waits for what is another's: then
    no two threads can wait for each other. After a fork nothing is being made by others in the child.
    """

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache
        self._processes: dict[int, _Underway] = {}

    def claim(self, keys: Sequence[bytes], ours: set[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, Future[bytes]]]:
        """Look distinct keys up, and claim those that nobody has or makes.

        Args:
            keys: Distinct, none of them claimed by the caller.
            ours: Receives the keys that are now the caller's to make; it is the caller's also if
                this raises, so that everything claimed can be released.

        Returns:
            The values held, and the futures of what other threads are making. A future is
            cancelled when its maker fails.
        """
        # One lock around both questions: between them another thread might finish a key.
        underway = self._underway
        with underway.lock:
            others = {key: underway.futures[key] for key in keys if key in underway.futures}
            asked = [key for key in keys if key not in others]
            found = self._cache.get(asked)
            for key in asked:
                if key not in found:
                    ours.add(key)
                    underway.futures[key] = Future()
        return found, others

    def land(self, values: Mapping[bytes, bytes], ours: set[bytes]) -> None:
        """Put claimed values into the cache, hand them to whoever waits, and take them off `ours`."""
        self._cache.put(values)
        underway = self._underway
        with underway.lock:
            for key, value in values.items():
                future = underway.futures.pop(key, None)
                if future is not None:  # else the caller forked since it claimed the key
                    future.set_result(value)
                ours.remove(key)

    def release(self, ours: Iterable[bytes]) -> None:
        """Give up claims, so that whoever waits makes the values itself."""
        underway = self._underway
        with underway.lock:
            for key in ours:
                future = underway.futures.pop(key, None)
                if future is not None:
                    future.cancel()

    @property
    def _underway(self) -> _Underway:
        # Whoever makes a key, or held the lock, stayed with the parent. setdefault is atomic: threads share one.
        return self._processes.setdefault(os.getpid(), _Underway())
