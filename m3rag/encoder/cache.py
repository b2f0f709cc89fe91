"""What an embedding cache is, and the one that lives in memory. `disk_cache` has the one that lasts."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from m3rag.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How much a cache holds and how much it helped.

    Attributes:
        hits: Keys asked for and found, since this object was made.
        misses: Keys asked for and not found, since this object was made.
        entries: Values held now.
        bytes: Room they take: of the values and keys in memory, of the used part of the file on disk.
    """

    hits: int
    misses: int
    entries: int
    bytes: int


class EmbeddingCache(Protocol):
    """Bytes under keys, the least recently used given up first. `CachedEncoder` says what they mean.

    Every method may be called from any thread.
    """

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are held, by key; keys that are not held are left out."""

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Hold values; of a key that is held already, the value must be the same."""

    def stats(self) -> CacheStats:
        """Hits and misses so far, entries and bytes now."""


class MemoryCache:
    """Values for a short while and within a budget, in memory.

    With it a framework that asks one encoder for dense, lexical and ColBERT vectors separately pays
    for one forward pass.

    Args:
        max_bytes: Most bytes of keys and values; beyond it the least recently used are dropped. A
            value that is larger alone is not held.
        ttl: Seconds a value is held after its last use. Room is freed by the next call, not by a timer.
        clock: Gives the time in seconds; never goes back.

    Raises:
        ConfigurationError: If `max_bytes` or `ttl` is not positive.

    Example:
        >>> cache = MemoryCache(ttl=60)
        >>> cache.put({b"key": b"value"})
        >>> cache.get([b"key", b"other"])
        {b'key': b'value'}
    """

    def __init__(
        self, *, max_bytes: int = 256 * 2**20, ttl: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if max_bytes < 1:
            raise ConfigurationError(f"max_bytes must be at least 1, got {max_bytes}")
        if not ttl > 0:
            raise ConfigurationError(f"ttl must be more than 0 seconds, got {ttl}")
        self.max_bytes = max_bytes
        self.ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        # In order of last use, which is also the order of expiry.
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def __reduce__(self) -> tuple[Callable[[], MemoryCache], tuple[()]]:
        return partial(type(self), max_bytes=self.max_bytes, ttl=self.ttl, clock=self._clock), ()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are held, by key; each is kept for another `ttl` seconds."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            now = self._expire()
            for key in keys:
                if key in self._entries:
                    found[key] = self._entries[key][1]
                    self._entries[key] = now, found[key]
                    self._entries.move_to_end(key)
                    self._hits += 1
                else:
                    self._misses += 1
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Hold values, and drop the least recently used until all are within the budget."""
        with self._lock:
            now = self._expire()
            for key, value in values.items():
                self._drop(key)
                if len(key) + len(value) <= self.max_bytes:
                    self._entries[key] = now, value
                    self._bytes += len(key) + len(value)
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def stats(self) -> CacheStats:
        """Hits and misses so far, entries and bytes now."""
        with self._lock:
            self._expire()
            return CacheStats(self._hits, self._misses, len(self._entries), self._bytes)

    def _expire(self) -> float:
        now = self._clock()
        while self._entries and next(iter(self._entries.values()))[0] + self.ttl <= now:
            self._drop(next(iter(self._entries)))
        return now

    def _drop(self, key: bytes) -> None:
        if key in self._entries:
            self._bytes -= len(key) + len(self._entries.pop(key)[1])
