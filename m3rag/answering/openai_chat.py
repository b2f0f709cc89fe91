"""Language models behind OpenAI's chat-completions protocol: OpenAI's own, and local servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from m3rag.answering.protocol import Message
from m3rag.errors import LLMError

if TYPE_CHECKING:
    from pydantic import SecretStr

NO_KEY = "none-needed"
"""Sent to servers other than OpenAI's when no key is given: the protocol wants one, they do not."""


class OpenAIChat:
    """An `LLM` reached by OpenAI's chat-completions protocol, streamed.

    Local servers (llama.cpp, xllamacpp, Ollama, vLLM, LM Studio) speak it too: give their `base_url`.

    Args:
        model: The model's name on the server.
        base_url: The server's address up to `/v1`; None takes `OPENAI_BASE_URL`, else OpenAI's.
        api_key: None takes `OPENAI_API_KEY`. A server given by address needs none. The key appears
            in no repr and no error.
        timeout: Seconds to wait for the connection, and for each further piece of a reply.
        temperature: 0 repeats the likeliest answer; None leaves it to the server (some models
            accept nothing else).
        max_tokens: Most tokens of a reply, thinking included.
        max_retries: How often a refused connection or a rate limit is tried again before a reply
            has begun.

    Raises:
        ImportError: If the `openai` package is not installed.
        LLMError: If there is neither a key nor an address.

    Use as a context manager, or call `close()`, to release its connections.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        timeout: float = 60.0,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
        max_retries: int = 2,
    ) -> None:
        openai = _openai()
        self.model = model
        self.timeout = timeout
        self.temperature = temperature
        self.max_tokens = max_tokens
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = _revealed(api_key) or os.environ.get("OPENAI_API_KEY") or (NO_KEY if base_url else "")
        if not key:
            raise LLMError(
                f"no API key for {model!r}: set OPENAI_API_KEY, pass api_key=, or pass base_url= of a local server"
            )
        self._client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=max_retries)
        self.base_url = _without_password(str(self._client.base_url))

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.model

    def __repr__(self) -> str:
        return f"OpenAIChat(model={self.model!r}, base_url={self.base_url!r})"

    def __enter__(self) -> OpenAIChat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    def complete(self, messages: Sequence[Message]) -> str:
        """The whole reply; raises as `stream` does."""
        return "".join(self.stream(messages))

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The reply in pieces, as they come.

        Raises:
            LLMError: If the server cannot be reached, refuses, breaks off, or cuts the reply short.
        """
        failures = _failures()
        finish: str | None = None
        try:
            with self._client.chat.completions.create(**self._request(messages)) as chunks:
                for chunk in chunks:
                    for choice in chunk.choices:
                        if choice.delta.content:
                            yield choice.delta.content
                        finish = choice.finish_reason or finish
        except failures as error:
            # The cause is left out: a server may repeat the key in its message.
            raise LLMError(self._explain(error)) from None
        if finish is None:
            raise LLMError(f"{self._where()} broke off in the middle of its reply: ask again, or look at its log")
        if finish == "length":
            raise LLMError(f"{self._where()} cut its reply at {self.max_tokens} tokens: raise max_tokens")
        if finish == "content_filter":
            raise LLMError(f"{self._where()} withheld its reply by its content filter: ask otherwise")

    def _request(self, messages: Sequence[Message]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
        }
        # OpenAI's newer models refuse the old name, many local servers do not know the new one.
        openai_own = urlsplit(self.base_url).hostname == "api.openai.com"
        request["max_completion_tokens" if openai_own else "max_tokens"] = self.max_tokens
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return request

    def _where(self) -> str:
        return f"the model {self.model!r} at {self.base_url}"

    def _explain(self, error: Exception) -> str:
        """What went wrong and what mends it."""
        openai = _openai()
        status = getattr(error, "status_code", None)
        said = f" (the server said: {self._redacted(error)})"
        if isinstance(error, (openai.APITimeoutError, *_of_http("TimeoutException"))):
            return f"{self._where()} sent nothing for {self.timeout:g} s: raise timeout, or use a smaller model"
        if isinstance(error, openai.APIConnectionError):
            return f"{self._where()} cannot be reached: start the server, or check base_url (OPENAI_BASE_URL)"
        remedies = {
            400: "check what the model accepts (temperature=None leaves it out; max_tokens may be too large)",
            401: "check api_key (OPENAI_API_KEY)",
            403: "check api_key (OPENAI_API_KEY) and what it may use",
            404: "check the model's name, and that base_url ends in /v1",
            429: "wait and ask again, or check the account's quota",
        }
        if status is not None:
            return f"{self._where()} answered {status}{said}: {remedies.get(status, 'look at the log of the server')}"
        return f"{self._where()} broke off or sent what is no chat completion{said}: ask again, or look at its log"

    def _redacted(self, error: Exception) -> str:
        message = " ".join(str(error).split())
        for secret in {self._client.api_key, urlsplit(str(self._client.base_url)).password} - {None, "", NO_KEY}:
            message = message.replace(str(secret), "***")
        return message[:300]


def _revealed(key: SecretStr | str | None) -> str | None:
    return key if key is None or isinstance(key, str) else key.get_secret_value()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def _failures() -> tuple[type[Exception], ...]:
    """What the package raises for a server that fails; a ValueError is what is no JSON."""
    return (_openai().OpenAIError, ValueError, *_of_http("TransportError"))


def _of_http(name: str) -> tuple[type[Exception], ...]:
    """An error class of the HTTP library under openai, whose 2.x lets them through when a stream breaks."""
    modules = (sys.modules.get(module) for module in ("httpx", "httpx2"))
    return tuple(getattr(module, name) for module in modules if module is not None)


def _openai() -> Any:
    """The openai package, loaded on first use: it takes half a second."""
    try:
        import openai  # noqa: PLC0415
    except ImportError as error:
        raise ImportError('OpenAIChat needs the openai package: pip install "m3rag[openai]"') from error
    return openai
