"""Concurrent callers share forward passes: what arrives while one runs is joined into the next.

A pass over eight questions costs little more than one over a single question, so a server should
not encode one by one what many people ask at once. Nothing is held back for it: an idle batcher
starts at once.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from m3rag.encoder.inputs import Role, require_texts
from m3rag.encoder.shared_calls import Call, CallWorker, Request
from m3rag.errors import ConfigurationError, InputError
from m3rag.output import M3Output

Output = TypeVar("Output", M3Output, npt.NDArray[np.float32])


class MicroBatcher:
    """Joins the texts of concurrent callers into shared calls of an encoder.

    One daemon thread makes the calls, one at a time. Requests that wait while it is busy are joined,
    oldest first, with those of the same method and options, up to `max_texts` and `max_chars`. A
    caller with more than that goes in pieces, and others get their turn in between.

    Callers may be on any event loop of any thread, one after the other or at the same time. A caller
    that is cancelled leaves the rest alone; what of it has not been started never is. When a joined
    call fails, each caller's texts are tried alone, so that only the guilty one fails.

    The thread starts with the first request and ends when it has been idle, or the batcher is
    collected. After a fork the child starts its own. When the interpreter exits, a running call is
    waited for (30 seconds at most) and what waits is cancelled.

    Args:
        max_texts: Most texts of one call.
        max_chars: Most characters of one call, unless one text alone has more: it keeps calls short
            enough that a question never waits long behind documents.
        max_wait_s: Seconds for which an idle batcher holds the first request back so that others may
            join it, 0 to 60. It costs that latency, and pays only where callers arrive spread out.

    Raises:
        ConfigurationError: If an option is out of range.
    """

    def __init__(self, *, max_texts: int = 256, max_chars: int = 131_072, max_wait_s: float = 0.0) -> None:
        if max_texts < 1 or max_chars < 1:
            raise ConfigurationError(
                f"max_texts and max_chars must be at least 1, got max_texts={max_texts}, max_chars={max_chars}"
            )
        if not 0 <= max_wait_s <= 60:
            raise ConfigurationError(f"max_wait_s must be 0 to 60 seconds, got {max_wait_s}")
        self.max_texts = max_texts
        self.max_chars = max_chars
        self.max_wait_s = max_wait_s
        self._worker = self._new_worker()

    async def run(self, method: Callable[..., Output], texts: Sequence[str], **options: object) -> Output:
        """`method(texts, **options)`, in a call shared with others of the same method and options.

        Args:
            method: A bound method of an encoder, such as `encoder.encode_queries`; its output has one
                row a text.
            texts: A list or tuple of strings.
            options: Keyword arguments of the method.

        Returns:
            The rows of these texts, in order; memory of their own.

        Raises:
            InputError: If `texts` is no list or tuple of strings.
            RuntimeError: If the interpreter is exiting.
        """
        call = Call(method, tuple(sorted(options.items())))
        outputs: list[Output] = []
        # One piece after the other: a caller with many texts stands in line again for each.
        for piece in self._pieces(_checked(texts)):
            request = Request(call, piece)
            self._current_worker().submit(request)
            outputs.append(await asyncio.wrap_future(request.future))
        # Gigabytes may have to be copied, which is no work for the event loop.
        return outputs[0] if len(outputs) == 1 else await asyncio.to_thread(_concatenate, outputs)

    def _pieces(self, texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        start = chars = 0
        for i, text in enumerate(texts):
            if i > start and (i - start == self.max_texts or chars + len(text) > self.max_chars):
                yield texts[start:i]
                start, chars = i, 0
            chars += len(text)
        yield texts[start:]

    def _current_worker(self) -> CallWorker:
        if self._worker.pid != os.getpid():  # the thread, and what waited for it, stayed with the parent
            self._worker = self._new_worker()
        return self._worker

    def _new_worker(self) -> CallWorker:
        worker = CallWorker(**self._options())
        weakref.finalize(self, worker.end).atexit = False
        return worker

    def _options(self) -> dict[str, Any]:
        return {"max_texts": self.max_texts, "max_chars": self.max_chars, "max_wait_s": self.max_wait_s}

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], MicroBatcher], tuple[dict[str, Any]]]:
        # A copy begins with a thread of its own.
        return _with_options, (self._options(),)


def _with_options(options: dict[str, Any]) -> MicroBatcher:
    return MicroBatcher(**options)


def _concatenate(outputs: list[Output]) -> Output:
    first = outputs[0]
    return np.concatenate(outputs) if isinstance(first, np.ndarray) else type(first).concatenate(outputs)


def _checked(texts: Sequence[str]) -> tuple[str, ...]:
    """A copy, which the caller cannot change while it waits."""
    if not isinstance(texts, list | tuple | str):
        raise InputError(f"texts must be a list of strings, got a {type(texts).__name__}; make it one with list(...)")
    require_texts(texts)
    return tuple(texts)


class _SyncEncoding(Protocol):
    """What AsyncEncoding builds on; any further options of the methods do not matter to it."""

    @property
    def batcher(self) -> MicroBatcher: ...

    @property
    def encode_queries(self) -> Callable[..., M3Output]: ...

    @property
    def encode_documents(self) -> Callable[..., M3Output]: ...

    @property
    def encode_dense(self) -> Callable[..., npt.NDArray[np.float32]]: ...


class AsyncEncoding:
    """A mixin: an encoder's `aencode_*` from its `encode_*`, with micro-batching.

    Example:
        >>> import asyncio
        >>> from m3rag.testing import HashEncoder
        >>> class AsyncHashEncoder(AsyncEncoding, HashEncoder):
        ...     "An encoder whose callers may wait for it."
        >>> async def ask(encoder):
        ...     questions = ["Do ducks swim?", "Nagent-ils ?"]
        ...     return await asyncio.gather(*(encoder.aencode_queries([q]) for q in questions))
        >>> [output.dense.shape for output in asyncio.run(ask(AsyncHashEncoder()))]
        [(1, 32), (1, 32)]
    """

    @property
    def batcher(self) -> MicroBatcher:
        """What joins the callers; assign a `MicroBatcher(...)` for other limits."""
        found: MicroBatcher | None = vars(self).get("_batcher")
        # setdefault is atomic: threads that come first together share one all the same.
        return found if found is not None else vars(self).setdefault("_batcher", MicroBatcher())

    @batcher.setter
    def batcher(self, batcher: MicroBatcher) -> None:
        vars(self)["_batcher"] = batcher

    async def aencode_queries(self: _SyncEncoding, texts: Sequence[str], *, max_length: int | None = None) -> M3Output:
        """Encode questions in a pass shared with concurrent callers; the event loop is not blocked.

        Args:
            texts: A list or tuple of strings; empty strings are allowed.
            max_length: Instead of the encoder's, for an encoder whose `encode_queries` has it.

        Returns:
            What `encode_queries` returns, to the rounding that another batch brings.

        Raises:
            InputError: If `texts` is no list or tuple of strings.
            ModelError: If one text alone does not fit in memory.
        """
        return await self.batcher.run(self.encode_queries, texts, **_given(max_length))

    async def aencode_documents(
        self: _SyncEncoding, texts: Sequence[str], *, max_length: int | None = None
    ) -> M3Output:
        """Encode passages; as `aencode_queries`, with the passages' prefix."""
        return await self.batcher.run(self.encode_documents, texts, **_given(max_length))

    async def aencode_dense(
        self: _SyncEncoding, texts: Sequence[str], *, role: Role, max_length: int | None = None
    ) -> npt.NDArray[np.float32]:
        """The dense vectors alone, `(n, d)` float32; as `aencode_queries`."""
        return await self.batcher.run(self.encode_dense, texts, role=role, **_given(max_length))


def _given(max_length: int | None) -> dict[str, object]:
    return {} if max_length is None else {"max_length": max_length}
