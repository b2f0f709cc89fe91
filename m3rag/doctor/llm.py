"""Check of the language model: whether its file is one, or its server can be reached and knows the model."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from m3rag.doctor.check import Check
from m3rag.errors import LLMError

if TYPE_CHECKING:
    from m3rag._openai import OpenAIConnection
    from m3rag.settings import LLMSettings

PATIENCE = 5.0
"""Most seconds to wait for a list of names, whatever answers may take."""


def check_llm(settings: LLMSettings) -> Iterator[Check]:
    """Ask the server of the settings for its models; no other network is touched, and no question is sent."""
    if settings.model is None:
        message = "none: answers are quoted sentences"
        remedy = "export M3RAG_LLM__MODEL=FILE.gguf, or M3RAG_LLM__MODEL=NAME and M3RAG_LLM__BASE_URL=ADDRESS"
        yield Check("language model", "info", message, remedy)
        return
    if settings.local:
        yield _file(settings.model)
        return
    from m3rag._openai import OpenAIConnection  # noqa: PLC0415 - not needed where there is no language model

    try:
        server = OpenAIConnection(
            settings.model,
            base_url=settings.base_url,
            api_key=settings.api_key,
            timeout=min(settings.timeout, PATIENCE),
            max_retries=0,
            owner="OpenAIChat",
            error=LLMError,
        )
    except ImportError as error:
        yield Check("language model", "error", str(error), 'pip install "m3rag[openai]"')
        return
    except LLMError as error:
        yield Check("language model", "error", str(error), "export OPENAI_API_KEY=KEY, or M3RAG_LLM__BASE_URL=ADDRESS")
        return
    try:
        yield _asked(server, settings.model)
    finally:
        server.close()


def _file(model: str) -> Check:
    from m3rag.answering.local import LocalChat  # noqa: PLC0415 - not needed where there is no such model

    try:
        with LocalChat(model) as llm:
            size = llm.path.stat().st_size / 1e9
            return Check("language model", "ok", f"{llm.path} ({size:.1f} GB) runs on this machine")
    except ImportError as error:
        return Check("language model", "error", str(error), 'pip install "m3rag[local]"')
    except LLMError as error:
        return Check("language model", "error", str(error), "export M3RAG_LLM__MODEL=FILE.gguf")


def _asked(server: OpenAIConnection, model: str) -> Check:
    try:
        known = sorted(one.id for one in server.client.models.list().data)
    except server.failures as error:
        if getattr(error, "status_code", None) in (404, 405, 501):
            return Check("language model", "ok", f"{server.where} can be reached; it does not list its models")
        remedy = "start the server, or see `m3rag config show --origin` for llm.base_url and llm.api_key"
        return Check("language model", "error", server.explain(error, kind="list of models", remedies={}), remedy)
    # Ollama lists `llama3.2:latest` for what is asked for as `llama3.2`.
    if not known or model in known or f"{model}:latest" in known:
        return Check("language model", "ok", f"{server.where} can be reached and is ready")
    near = get_close_matches(model, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:5])}"
    remedy = f"export M3RAG_LLM__MODEL={near[0] if near else known[0]}"
    return Check("language model", "error", f"the server at {server.base_url} has no model {model!r}: {meant}", remedy)
