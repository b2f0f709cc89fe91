"""What the tests of LlamaIndex's classes share: a language model that says what it is told to,
and an index in every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from pydantic import Field


class ScriptedLLM(CustomLLM):
    """Replies one after the other, the last for ever, in pieces of four characters; keeps the prompts."""

    replies: list[str]
    prompts: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self.replies[min(len(self.prompts), len(self.replies)) - 1])

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        text = self.complete(prompt).text

        def pieces() -> CompletionResponseGen:
            for start in range(0, len(text), 4):
                yield CompletionResponse(text=text[: start + 4], delta=text[start : start + 4])

        return pieces()


@pytest.fixture
def scripted() -> Callable[..., ScriptedLLM]:
    """Makes a model from its replies."""

    def make(*replies: str) -> ScriptedLLM:
        return ScriptedLLM(replies=list(replies))

    return make
