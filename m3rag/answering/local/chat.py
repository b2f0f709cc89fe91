"""A language model in a GGUF file, as an `LLM`: llama.cpp on this machine, spoken to as to any other server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from m3rag.answering.local.file import checked_gguf
from m3rag.answering.local.process import Setup
from m3rag.answering.local.running import Running, Speech
from m3rag.answering.protocol import Message
from m3rag.errors import ConfigurationError, LLMError

CONTEXT_TOKENS = 8192
"""Room for five passages and a reply; at a model's full length the memory for it may exceed that of its weights."""

LEAST_REPLY = 16
"""Tokens: with less room than this the context counts as full."""

LARGER = "raise context_tokens if the model was trained with more, or send fewer passages or a shorter question"


class LocalChat:
    """An `LLM` that llama.cpp runs from a GGUF file, in a process of its own on this machine.

    The model is loaded with the first question, once for all threads, which take turns. It ends with
    `close`, when this object is forgotten, or with this process, however that ends. A model that died
    is loaded again with the next question.

    Args:
        path: The GGUF file of an instruct model; of one in parts, the first.
        context_tokens: Most tokens of prompt and reply together; 0 for as many as the model was trained
            with, which may take much memory. Never more than that.
        max_tokens: Most tokens of a reply, thinking included.
        temperature: 0 repeats the likeliest answer.
        threads: Of the CPU; None for as many as there are cores.
        timeout: Seconds to wait for a turn while other replies are written. Reading a long prompt may take
            longer: the model gives signs of life meanwhile.
        load_seconds: Most seconds that loading may take.

    Raises:
        ImportError: If the extra `local` is not installed.
        ConfigurationError: If a number is out of range.
        LLMError: If the file is not there, or is not GGUF.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_tokens: int = CONTEXT_TOKENS,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        threads: int | None = None,
        timeout: float = 60.0,
        load_seconds: float = 600.0,
    ) -> None:
        for name, value, least in (
            ("context_tokens", context_tokens, 0),
            ("max_tokens", max_tokens, 1),
            ("threads", 1 if threads is None else threads, 1),
        ):
            if value < least:
                raise ConfigurationError(f"{name} is {value}: it must be at least {least}")
        require_local()
        self.path = checked_gguf(path)
        self._setup = Setup(
            path=self.path,
            context_tokens=context_tokens,
            threads=threads or 0,
            seconds=load_seconds,
        )
        self._speech = Speech(max_tokens=max_tokens, temperature=temperature, timeout=timeout)
        self._running: Running | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def __repr__(self) -> str:
        return f"LocalChat({str(self.path)!r})"

    def __enter__(self) -> LocalChat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the model. Closing twice does nothing; a further question loads it again."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()

    @property
    def context_tokens(self) -> int:
        """Most tokens of prompt and reply together; loads the model."""
        return self._loaded().context_tokens

    def count_tokens(self, text: str) -> int:
        """The tokens of a text, without specials; loads the model.

        Raises:
            LLMError: If the model cannot be loaded.
        """
        return self._loaded().count(text)

    def room(self, messages: Sequence[Message]) -> int:
        """How many tokens can be added to a prompt that keeps free what a reply needs; loads the model.

        Args:
            messages: The prompt so far.

        Raises:
            LLMError: If there is none, or the model cannot be loaded.
        """
        running = self._loaded()
        size = running.count_prompt(messages)
        # A quarter for the reply where the context is so small that a full one would leave nothing to read.
        left = running.context_tokens - min(self._speech.max_tokens, running.context_tokens // 4) - size
        if left < 1:
            raise LLMError(self._too_long(size, running.context_tokens))
        return left

    def complete(self, messages: Sequence[Message]) -> str:
        """The whole reply; raises as `stream` does."""
        return "".join(self.stream(messages))

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The reply in pieces, as they come; closing the iterator ends the work.

        Raises:
            LLMError: If the model cannot be loaded, the prompt is too long for it, it dies, or its reply is cut short.
        """
        running = self._loaded()
        size = running.count_prompt(messages)
        if size + LEAST_REPLY > running.context_tokens:
            raise LLMError(self._too_long(size, running.context_tokens))
        pieces: list[str] = []
        try:
            for piece in running.chat.stream(messages):
                pieces.append(piece)
                yield piece
        except LLMError as error:
            explained = running.explained(error)
            if explained is error and size + running.count("".join(pieces)) + LEAST_REPLY > running.context_tokens:
                raise LLMError(self._full(size, running.context_tokens)) from None
            raise explained from None

    def _loaded(self) -> Running:
        with self._lock:
            if self._running is not None and not self._running.process.alive:
                self._running.close()
                self._running = None
            if self._running is None:
                self._running = Running(self._setup, self._speech)
            return self._running

    def _too_long(self, size: int, most: int) -> str:
        return f"the prompt of {size} tokens does not fit the context of the model {self.path}, {most} tokens: {LARGER}"

    def _full(self, size: int, most: int) -> str:
        return (
            f"the context of the model {self.path}, {most} tokens, left no room for a whole reply beside the prompt of "
            f"{size}: {LARGER}"
        )


def require_local() -> None:
    """See that what runs a model is installed; nothing is imported.

    Raises:
        ImportError: If it is not.
    """
    for package in ("xllamacpp", "openai"):
        if find_spec(package) is None:
            raise ImportError(f'LocalChat needs {package}: pip install "m3rag[local]"', name=package)
