"""CachedEncoder: any encoder over any embedding cache."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from m3rag._copied import CopiedAsItself
from m3rag.encoder.cache import EmbeddingCache
from m3rag.encoder.cache_value import dense_of, from_values, to_values
from m3rag.encoder.inputs import Progress, Role, require_role, require_texts, require_whole
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.encoder.protocol import Encoder
from m3rag.encoder.single_flight import SingleFlight
from m3rag.output import M3Output
from m3rag.types import ModelInfo

VALUE_FORMAT = 1
"""Part of every key: raised when the bytes of a value, or the numbers of a model, come to mean something else."""

# Values are looked up, and texts encoded, this many at a time, so that all the ColBERT vectors of a long
# list are never held at once: a million characters are about 250,000 tokens, 0.5 GB of BGE-M3's.
LOOKED_UP_AT_ONCE = 256
ENCODED_AT_ONCE = 2048
CHARACTERS_AT_ONCE = 1_000_000

Take = Callable[[bytes, bytes], object]
Done = Callable[[Mapping[bytes, bytes]], None]
Encode = Callable[[Mapping[bytes, str], set[bytes]], None]


class CachedEncoder(AsyncEncoding, CopiedAsItself):
    """Encode texts, but only those that a cache does not hold; what it holds comes back bit for bit.

    A text is found again by model fingerprint, role, maximal length, ColBERT dtype and its characters,
    so one cache may serve many encoders. As for an index, the device and the dtype it computes in do
    not count: they change no more than rounding. All three representations of a text are held together:
    asking for one of them pays for the others too. A text that is in a call several times, or in
    calls of several threads at once, is encoded once.

    Attributes that are not of the `Encoder` protocol (`device`, `recipe`) are the encoder's own.

    Args:
        encoder: Encodes what is missing.
        cache: `MemoryCache` for a short while, `DiskCache` for good. It stays the caller's to close. Pickled are
            the two: another process has the same file, or begins with an empty memory.

    Example:
        >>> encoder = CachedEncoder(M3Encoder("mini"), MemoryCache())
        >>> output = encoder.encode_documents(["Ducks swim."])
        >>> dense = encoder.encode_dense(["Ducks swim."], role="document")  # no forward pass
    """

    def __init__(self, encoder: Encoder, cache: EmbeddingCache) -> None:
        self.encoder = encoder
        self.cache = cache
        self._reports_progress = "progress" in inspect.signature(encoder.encode_documents).parameters
        self._flight = SingleFlight(cache)

    def __reduce__(self) -> tuple[type[CachedEncoder], tuple[Encoder, EmbeddingCache]]:
        return type(self), (self.encoder, self.cache)

    @property
    def info(self) -> ModelInfo:
        """The encoder's name, fingerprint and dimensions."""
        return self.encoder.info

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials and prefix included; what is longer is cut."""
        return self.encoder.max_length

    def encode_queries(
        self, texts: Sequence[str], *, max_length: int | None = None, progress: Progress | None = None
    ) -> M3Output:
        """Encode questions.

        Args:
            texts: Any number of strings; empty strings are allowed.
            max_length: Instead of the encoder's, for this call, where the encoder knows that option.
            progress: Called with the number of texts done since the last call.

        Returns:
            Representations in the order given.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
            StoreError: If the cache is damaged or cannot be written.
        """
        return self._encode(texts, "query", max_length, progress)

    def encode_documents(
        self, texts: Sequence[str], *, max_length: int | None = None, progress: Progress | None = None
    ) -> M3Output:
        """Encode passages; as `encode_queries`."""
        return self._encode(texts, "document", max_length, progress)

    def encode_dense(
        self, texts: Sequence[str], *, role: Role, max_length: int | None = None, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """The dense vectors alone, `(n, d)` float32; the other two go into the cache, not into memory."""
        keys = self._keys(texts, role, max_length)
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        dense = np.empty((len(keys), self.info.dense_dim), np.float32)

        def take(key: bytes, value: bytes) -> None:
            dense[rows[key]] = dense_of(value)

        self._collect(
            dict(zip(keys, texts, strict=True)), Counter(keys), self._method(role, max_length), take, progress
        )
        return dense

    def token(self, token_id: int) -> str:
        """The readable token of an id, as it stands in `M3Output.lexical`."""
        return self.encoder.token(token_id)

    def token_spans(self, text: str, **options: Any) -> npt.NDArray[np.int64]:
        """Character spans `(tokens, 2)` of the ColBERT vectors of a passage; options as the encoder's."""
        spans: Callable[..., npt.NDArray[np.int64]] = self.encoder.token_spans
        return spans(text, **options)

    def word_spans(self, text: str) -> npt.NDArray[np.int64]:
        """Character spans `(tokens, 2)` of the tokens of a text of any length."""
        return self.encoder.word_spans(text)

    def __getattr__(self, name: str) -> Any:
        # Another way to encode would pass the cache by unseen.
        if name.startswith("_") or "encode" in name:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.encoder, name)

    def _encode(self, texts: Sequence[str], role: Role, max_length: int | None, progress: Progress | None) -> M3Output:
        keys = self._keys(texts, role, max_length)
        method = self._method(role, max_length)
        if not keys:
            return method([])
        values: dict[bytes, bytes] = {}
        self._collect(dict(zip(keys, texts, strict=True)), Counter(keys), method, values.__setitem__, progress)
        return from_values([values[key] for key in keys], vocab_size=self.info.vocab_size)

    def _method(self, role: Role, max_length: int | None) -> Callable[..., M3Output]:
        methods: dict[Role, Callable[..., M3Output]] = {
            "query": self.encoder.encode_queries,
            "document": self.encoder.encode_documents,
        }
        method = methods[role]
        return method if max_length is None else partial(method, max_length=max_length)

    @cached_property
    def _colbert_dtype(self) -> str:
        return self.encoder.encode_documents([]).colbert.dtype.str

    def _keys(self, texts: Sequence[str], role: Role, max_length: int | None) -> list[bytes]:
        require_texts(texts)
        require_role(role)
        length = require_whole("max_length", self.max_length if max_length is None else max_length)
        what = [VALUE_FORMAT, self.info.fingerprint, role, length, self._colbert_dtype]
        # JSON holds no zero byte, so that two different keys never are the same bytes.
        start = hashlib.blake2b(json.dumps(what).encode() + b"\0", digest_size=32)
        keys = []
        for text in texts:
            digest = start.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            keys.append(digest.digest())
        return keys

    def _collect(
        self,
        wanted: dict[bytes, str],
        counts: Mapping[bytes, int],
        method: Callable[..., M3Output],
        take: Take,
        progress: Progress | None,
    ) -> None:
        """Hand the value of each key to `take` once, in no particular order; progress counts each `counts` times."""
        tells = self._reports_progress and progress is not None

        def done(values: Mapping[bytes, bytes], *, reported: int = 0) -> None:
            for key, value in values.items():
                take(key, value)
            n = sum(counts[key] for key in values) - reported
            if progress is not None and n:
                progress(n)

        def encode(missing: Mapping[bytes, str], ours: set[bytes]) -> None:
            output = method(list(missing.values()), **({"progress": progress} if tells else {}))
            values = dict(zip(missing, to_values(output), strict=True))
            self._flight.land(values, ours)
            done(values, reported=len(values) if tells else 0)

        while wanted:
            wanted = self._pass(wanted, encode, done)

    def _pass(self, wanted: Mapping[bytes, str], encode: Encode, done: Done) -> dict[bytes, str]:
        """Take what is held, encode what is ours, then wait for what other threads encode.

        Returns:
            What another thread failed at.
        """
        ours: set[bytes] = set()
        others: dict[bytes, Future[bytes]] = {}
        missing: dict[bytes, str] = {}
        try:
            for part in _parts(wanted):
                found, underway = self._flight.claim(part, ours)
                others |= underway
                done(found)
                missing |= {key: wanted[key] for key in part if key in ours}
                if len(missing) >= ENCODED_AT_ONCE or sum(map(len, missing.values())) >= CHARACTERS_AT_ONCE:
                    encode(missing, ours)
                    missing = {}
            if missing:
                encode(missing, ours)
        finally:
            self._flight.release(ours)
        failed = {}
        for key, future in others.items():
            try:
                done({key: future.result()})
            except CancelledError:
                failed[key] = wanted[key]
        return failed


def _parts(texts: Mapping[bytes, str]) -> Iterator[list[bytes]]:
    """Keys in parts that are small enough to look up at once."""
    part: list[bytes] = []
    characters = 0
    for key, text in texts.items():
        part.append(key)
        characters += len(text)
        if len(part) >= LOOKED_UP_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield part
            part, characters = [], 0
    if part:
        yield part
