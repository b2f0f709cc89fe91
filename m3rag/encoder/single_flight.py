"""Over a cache: what is missing is made by one thread, and the others that want it wait."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from m3rag.encoder.cache import EmbeddingCache


class SingleFlight:
    """Says of each key whether it is held, ours to make, or being made by another thread.

    A thread must land or release all that is its own before it waits for what is another's: then
    no two threads can wait for each other.
    """

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache
        self._underway: dict[bytes, Future[bytes]] = {}
        self._lock = threading.Lock()

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
        with self._lock:
            others = {key: self._underway[key] for key in keys if key in self._underway}
            asked = [key for key in keys if key not in others]
            found = self._cache.get(asked)
            for key in asked:
                if key not in found:
                    ours.add(key)
                    self._underway[key] = Future()
        return found, others

    def land(self, values: Mapping[bytes, bytes], ours: set[bytes]) -> None:
        """Put claimed values into the cache, hand them to whoever waits, and take them off `ours`."""
        self._cache.put(values)
        with self._lock:
            for key, value in values.items():
                self._underway[key].set_result(value)
                del self._underway[key]
                ours.remove(key)

    def release(self, ours: Iterable[bytes]) -> None:
        """Give up claims, so that whoever waits makes the values itself."""
        with self._lock:
            for key in ours:
                future = self._underway.pop(key, None)
                if future is not None:
                    future.cancel()
