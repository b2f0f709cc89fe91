"""A connection to a server that speaks OpenAI's protocol: its key stays secret, its failures name their remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from m3rag._addresses import is_address, on_this_machine, without_secrets
from m3rag.encoder.inputs import require_whole
from m3rag.errors import ConfigurationError, M3RagError

if TYPE_CHECKING:
    from pydantic import SecretStr

NO_KEY = "none-needed"
"""Sent to servers other than OpenAI's when no key is given: the protocol wants one, they do not."""


class OpenAIConnection:
    """A client of the `openai` package for one model.

    Args:
        model: The model's name on the server.
        base_url: The server's address up to `/v1`; None takes `OPENAI_BASE_URL`, else OpenAI's.
        api_key: None takes `OPENAI_API_KEY`. A server given by address needs none.
        timeout: Seconds to wait for the server each time.
        max_retries: How often a refused connection or a rate limit is tried again.
        owner: The class that needs the package, for the message where it is missing.
        error: What is raised where there is neither a key nor an address.

    Attributes:
        client: The package's client.
        base_url: The server's address, without a password or a query.

    Raises:
        ConfigurationError: If `timeout` is no number above 0, or `max_retries` no whole number from 0.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        api_key: SecretStr | str | None,
        timeout: float,
        max_retries: int,
        owner: str,
        error: type[M3RagError],
    ) -> None:
        _require_seconds(timeout)
        max_retries = require_whole("max_retries", max_retries, least=0)
        self._package = openai_package(owner)
        self.model = model
        self.timeout = timeout = float(timeout)
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if base_url and not is_address(base_url):
            raise error(
                f"the address of the model {model!r}, {without_secrets(base_url)!r}, is none: give base_url "
                "(OPENAI_BASE_URL) as http://HOST:PORT/v1"
            )
        key = _revealed(api_key) or os.environ.get("OPENAI_API_KEY") or (NO_KEY if base_url else "")
        if not key:
            raise error(
                f"no API key for {model!r}: set OPENAI_API_KEY, pass api_key=, or pass base_url= of a local server"
            )
        http = self._package.DefaultHttpxClient(trust_env=False) if base_url and on_this_machine(base_url) else None
        self.client: Any = self._package.OpenAI(
            base_url=base_url, api_key=key, timeout=timeout, max_retries=max_retries, http_client=http
        )
        self.base_url = without_secrets(str(self.client.base_url))

    @property
    def where(self) -> str:
        """The model and its server, as errors name them."""
        return f"the model {self.model!r} at {self.base_url}"

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What the package raises for a server that fails; a ValueError is what is no JSON.

        Whoever catches them should raise `from None`: a server may repeat the key in its message.
        """
        return (self._package.OpenAIError, ValueError, *_of_http("TransportError"))

    def explain(self, error: Exception, *, kind: str, remedies: Mapping[int, str], begun: bool = False) -> str:
        """What went wrong and what mends it, without the key.

        Args:
            error: One of `failures`.
            kind: What the server should have sent, such as "chat completion".
            remedies: By HTTP status, where the remedy depends on what was asked.
            begun: Whether the reply had begun.
        """
        status = getattr(error, "status_code", None)
        broken = isinstance(error.__cause__, (*_of_http("RemoteProtocolError"), *_of_http("ReadError")))
        said = f" (the server said: {self._redacted(error.__cause__ if broken else error)})"
        if isinstance(error, (self._package.APITimeoutError, *_of_http("TimeoutException"))):
            return f"{self.where} sent nothing for {self.timeout:g} s: raise timeout, or use a smaller model"
        if isinstance(error, self._package.APIConnectionError) and not (begun or broken):
            return f"{self.where} cannot be reached: start the server, or check base_url (OPENAI_BASE_URL)"
        known = {
            401: "check api_key (OPENAI_API_KEY)",
            403: "check api_key (OPENAI_API_KEY) and what it may use",
            404: "check the model's name, and that base_url ends in /v1",
            429: "wait and ask again, or check the account's quota",
            **remedies,
        }
        if status is not None:
            return f"{self.where} answered {status}{said}: {known.get(status, 'look at the log of the server')}"
        return f"{self.where} broke off or sent what is no {kind}{said}: ask again, or look at its log"

    def close(self) -> None:
        """Release the connections."""
        self.client.close()

    def _redacted(self, error: BaseException | None) -> str:
        message = " ".join(str(error).split())
        for secret in {self.client.api_key, urlsplit(str(self.client.base_url)).password} - {None, "", NO_KEY}:
            message = message.replace(str(secret), "***")
        return message[:300]


def _require_seconds(timeout: object) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not float(timeout) > 0:
        raise ConfigurationError(f"timeout must be a number of seconds above 0, got {timeout!r}")


def openai_package(owner: str) -> Any:
    """The openai package, loaded on first use: it takes half a second.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import openai  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(f'{owner} needs the openai package: pip install "m3rag[openai]"') from error
    return openai


def _revealed(key: SecretStr | str | None) -> str | None:
    return key if key is None or isinstance(key, str) else key.get_secret_value()


def _of_http(name: str) -> tuple[type[Exception], ...]:
    """An error class of the HTTP library under openai, whose 2.x lets them through when a stream breaks."""
    modules = (sys.modules.get(module) for module in ("httpx", "httpx2"))
    return tuple(getattr(module, name) for module in modules if module is not None)
