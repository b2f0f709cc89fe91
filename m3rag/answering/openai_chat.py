"""Language models behind OpenAI's chat-completions protocol: OpenAI's own, and local servers."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from m3rag._openai import OpenAIConnection
from m3rag.answering.protocol import Message
from m3rag.errors import LLMError

if TYPE_CHECKING:
    from pydantic import SecretStr

REMEDIES = {400: "check what the model accepts (temperature=None leaves it out; max_tokens may be too large)"}


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
        ConfigurationError: If `timeout` is no number above 0, or `max_retries` no whole number from 0.

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
        self.model = model
        self.timeout = timeout
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._server = OpenAIConnection(
            model,
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            owner="OpenAIChat",
            error=LLMError,
        )
        self.base_url = self._server.base_url

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
        self._server.close()

    def complete(self, messages: Sequence[Message]) -> str:
        """The whole reply; raises as `stream` does."""
        return "".join(self.stream(messages))

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The reply in pieces, as they come.

        Raises:
            LLMError: If the server cannot be reached, refuses, breaks off, or cuts the reply short.
        """
        where = self._server.where
        # AttributeError and TypeError are what a reply in another form brings about.
        failures: tuple[type[Exception], ...] = (*self._server.failures, AttributeError, TypeError)
        finish: str | None = None
        begun = streamed = False
        # A server may cut a reply within a pair of surrogates: the half waits for the other.
        joined = getincrementaldecoder("utf-16-le")("replace").decode
        try:
            with self._server.client.chat.completions.create(**self._request(messages)) as chunks:
                begun = True
                for chunk in chunks:
                    streamed = True
                    for choice in chunk.choices or ():  # some servers say null where others say []
                        content = choice.delta.content if choice.delta else None
                        if content and (text := joined(content.encode("utf-16-le", "surrogatepass"))):
                            yield text
                        finish = choice.finish_reason or finish
        except failures as error:
            # The cause is left out: a server may repeat the key in its message.
            said = self._server.explain(error, kind="chat completion", remedies=REMEDIES, begun=begun)
            raise LLMError(said) from None
        if text := joined(b"", True):
            yield text
        if not streamed:
            raise LLMError(
                f"{where} sent no streamed chat completion: check that base_url ends in /v1, or look at its log"
            )
        if finish is None:
            raise LLMError(f"{where} broke off in the middle of its reply: ask again, or look at its log")
        if finish == "length":
            raise LLMError(f"{where} cut its reply at {self.max_tokens} tokens: raise max_tokens")
        if finish == "content_filter":
            raise LLMError(f"{where} withheld its reply by its content filter: ask otherwise")

    def _request(self, messages: Sequence[Message]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": _in_unicode(message.content)} for message in messages],
            "stream": True,
        }
        # OpenAI's newer models refuse the old name, many local servers do not know the new one.
        openai_own = urlsplit(self.base_url).hostname == "api.openai.com"
        request["max_completion_tokens" if openai_own else "max_tokens"] = self.max_tokens
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return request


def _in_unicode(text: str) -> str:
    """The text without lone surrogates, which JSON and a shell can hand over, and nothing can send or print."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
