"""A loaded model and the ways to speak to it: its chat, and what counts its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from m3rag._openai import OpenAIConnection
from m3rag.answering.local.process import LlamaProcess, Setup
from m3rag.answering.openai_chat import OpenAIChat
from m3rag.answering.protocol import Message
from m3rag.errors import LLMError


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """How a model is asked; see `LocalChat`."""

    max_tokens: int
    temperature: float
    timeout: float


class Running:
    """A model that was loaded: a llama.cpp server, and two clients of it.

    Args:
        setup: What is run.
        speech: How it is asked.

    Raises:
        LLMError: If it cannot be loaded.

    Attributes:
        process: The server.
        chat: The `LLM` that speaks to it.
        context_tokens: Most tokens of prompt and reply together.
    """

    def __init__(self, setup: Setup, speech: Speech) -> None:
        self.process = LlamaProcess(setup)
        try:
            model, base_url, key = setup.path.stem, f"{self.process.address}/v1", self.process.api_key
            self._server = OpenAIConnection(
                model,
                base_url=base_url,
                api_key=key,
                timeout=speech.timeout,
                max_retries=0,
                owner="LocalChat",
                error=LLMError,
            )
            self.chat = OpenAIChat(
                model,
                base_url=base_url,
                api_key=key,
                timeout=speech.timeout,
                temperature=speech.temperature,
                max_tokens=speech.max_tokens,
                max_retries=0,
            )
            properties = self._asked("get", f"{self.process.address}/props")
            self.context_tokens = int(properties["default_generation_settings"]["n_ctx"])
        except BaseException:
            self.process.close()
            raise

    def count(self, text: str) -> int:
        """The tokens of a text, without specials."""
        return len(self._asked("post", f"{self.process.address}/tokenize", {"content": text})["tokens"])

    def count_prompt(self, messages: Sequence[Message]) -> int:
        """The tokens of a prompt as the model reads it, with what its template puts around the messages."""
        body = {"messages": [{"role": message.role, "content": message.content} for message in messages]}
        return int(self._asked("post", "/chat/completions/input_tokens", body)["input_tokens"])

    def close(self) -> None:
        """End the server, and what it is replying."""
        self.process.close()
        self.chat.close()
        self._server.close()

    def explained(self, error: LLMError) -> LLMError:
        """What a failed request means: that the model is gone, if it is."""
        if self.process.closed:
            return LLMError(f"the model {self.process.setup.path} was closed while it was asked: ask before close()")
        if self.process.ended(within=1.0):
            return LLMError(self.process.post_mortem())
        return error

    def _asked(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        client = self._server.client
        try:
            given = {} if body is None else {"body": body}
            reply: dict[str, Any] = getattr(client, method)(path, cast_to=dict[str, Any], **given)
        except self._server.failures as error:
            said = self._server.explain(error, kind="count of tokens", remedies={})
            raise self.explained(LLMError(said)) from None
        return reply
