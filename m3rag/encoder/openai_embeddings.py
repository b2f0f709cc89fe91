"""OpenAIEncoder: dense vectors from any server that speaks OpenAI's embeddings protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from m3rag._openai import OpenAIConnection
from m3rag.encoder.dense_only import Batch, DenseOnlyEncoder
from m3rag.encoder.fingerprint import fingerprint
from m3rag.encoder.inputs import require_whole
from m3rag.encoder.spans import Spans, spans_of
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from pathlib import Path

    import tiktoken
    from pydantic import SecretStr
    from tokenizers import Tokenizer

    from m3rag.encoder.inputs import Role

SPECIALS = 2
"""Tokens that most models put around a text."""

REMEDIES = {
    400: "check what the model accepts (max_length and batch_size may be too large; dimensions=None and "
    "encoding_format='float' suit more servers)",
    413: "lower batch_size or batch_tokens",
    422: "lower batch_size or max_length",
}


class OpenAIEncoder(DenseOnlyEncoder):
    """Encode texts on a server: one dense vector a text, no other leg.

    OpenAI's own models, and local servers that speak its protocol (vLLM, text-embeddings-inference,
    llama.cpp, Ollama, LM Studio): give their `base_url`. Safe to share between threads.

    Pickled are its arguments, but for the key, which another process takes from its `OPENAI_API_KEY`; a
    password in `base_url` goes along.

    A blank text is not sent, since most servers refuse it: its vector is zero, like nothing at all.

    Setup:
        ```bash
        pip install "m3rag[openai]"
        ```

    Example:
        >>> encoder = OpenAIEncoder("text-embedding-3-small")  # doctest: +SKIP
        >>> kb = KnowledgeBase("my-index", encoder=encoder, mode="dense")  # doctest: +SKIP

    The weights of a server cannot be looked at, so the fingerprint is that of the model's name, its
    dimension and the options: an index is not protected from another model under the same name.

    Args:
        model: The model's name on the server.
        base_url: The server's address up to `/v1`; None takes `OPENAI_BASE_URL`, else OpenAI's.
        api_key: None takes `OPENAI_API_KEY`. A server given by address needs none. The key appears
            in no repr and no error.
        dimensions: Length of the vectors, asked of the server, for models that can cut them short.
            None takes the model's own, found by encoding one word when it is first needed.
        query_instruction: Put before each question, such as "query: ".
        document_instruction: Put before each passage.
        normalize: Bring vectors to unit length, so that scores are cosines.
        max_length: Most tokens of a text, specials and instruction included; longer ones are cut.
            The default is OpenAI's: give that of your model.
        tokenizer: The model's, so that lengths are exact: a `tokenizer.json` (or its folder), a
            `tokenizers.Tokenizer` or a `tiktoken.Encoding`. Without one, lengths are estimated on
            the safe side (`m3rag.encoder.spans.estimated_spans`), and chunks come out smaller.
        batch_size: Most texts of a request. text-embeddings-inference takes no more than 32 unless
            told otherwise; OpenAI takes 2048.
        batch_tokens: Most tokens of a request, unless one text alone has more.
        encoding_format: How vectors are sent: `base64` is a quarter of the bytes, `float` is known
            to every server.
        timeout: Seconds to wait for the server each time.
        max_retries: How often a refused connection or a rate limit is tried again.

    Raises:
        ImportError: If the `openai` package is not installed.
        ModelError: If there is neither a key nor an address, or the tokenizer cannot be read.
        ConfigurationError: If an option is out of range.

    Use as a context manager, or call `close()`, to release its connections.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | str | None = None,
        dimensions: int | None = None,
        query_instruction: str = "",
        document_instruction: str = "",
        normalize: bool = True,
        max_length: int = 8192,
        tokenizer: str | Path | Tokenizer | tiktoken.Encoding | None = None,
        batch_size: int = 32,
        batch_tokens: int = 100_000,
        encoding_format: Literal["base64", "float"] = "base64",
        timeout: float = 60.0,
        max_retries: int = 2,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name not in {"self", "api_key"}}
        for name, text in (("query_instruction", query_instruction), ("document_instruction", document_instruction)):
            if not isinstance(text, str):
                raise ConfigurationError(f"{name} must be text, got {text!r}: leave it out for none")
        if encoding_format not in {"base64", "float"}:
            raise ConfigurationError(f"encoding_format {encoding_format!r} is unknown: choose base64 or float")
        if not model.strip():
            raise InputError("the model's name is empty: give its name on the server")
        self.normalize = normalize
        self.dimensions = None if dimensions is None else require_whole("dimensions", dimensions, least=1)
        self.batch_size = require_whole("batch_size", batch_size, least=1)
        self.batch_tokens = require_whole("batch_tokens", batch_tokens, least=1)
        self.encoding_format = encoding_format
        self._instructions = {"query": query_instruction, "document": document_instruction}
        self._spans_of = spans_of(tokenizer)
        self._max_length = require_whole("max_length", max_length)
        longest = max(len(self._spans_of(text)) for text in self._instructions.values())
        if max_length <= longest + SPECIALS:
            raise ConfigurationError(
                f"max_length {max_length} leaves no room for a text beside {SPECIALS} specials and an instruction of "
                f"{longest} tokens: raise it"
            )
        self._server = OpenAIConnection(
            model,
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            owner="OpenAIEncoder",
            error=ModelError,
        )
        self._info: ModelInfo | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[], OpenAIEncoder], tuple[()]]:
        return partial(type(self), **self._arguments), ()

    @property
    def base_url(self) -> str:
        """The server's address, without a password."""
        return self._server.base_url

    @property
    def info(self) -> ModelInfo:
        """The model's name, fingerprint and dimension.

        Raises:
            ModelError: If the dimension is not known yet and the server fails.
        """
        with self._lock:
            if self._info is None:
                self._info = self._described(self.dimensions or self._request(["dimension"]).shape[1])
            return self._info

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials and instruction included."""
        return self._max_length

    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens of a text of any length, white space left out."""
        return self._spans_of(text)

    def close(self) -> None:
        """Release the connections."""
        self._server.close()

    def __repr__(self) -> str:
        return f"OpenAIEncoder({self._server.model!r}, base_url={self.base_url!r})"

    def __enter__(self) -> OpenAIEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _described(self, dimension: int) -> ModelInfo:
        options = {
            "model": self._server.model,
            "dimension": dimension,
            "instructions": self._instructions,
            "normalize": self.normalize,
            "max_length": self.max_length,
        }
        return ModelInfo(
            name=self._server.model,
            fingerprint=fingerprint(options),
            dense_dim=dimension,
            vocab_size=0,
            colbert_dim=0,
        )

    def _embed(self, texts: list[str], role: Role) -> Iterator[Batch]:
        instruction = self._instructions[role]
        before = len(self._spans_of(instruction)) + SPECIALS
        blank: list[int] = []
        rows: list[int] = []
        inputs: list[str] = []
        tokens = 0
        shortened = 0
        for row, text in enumerate(texts):
            cut, length = self._cut(text, self.max_length - before)
            shortened += len(cut) < len(text)
            if not cut.strip():
                blank.append(row)
                continue
            if rows and (len(rows) == self.batch_size or tokens + before + length > self.batch_tokens):
                yield np.array(rows), self._request(inputs)
                rows, inputs, tokens = [], [], 0
            rows.append(row)
            inputs.append(instruction + cut)
            tokens += before + length
        if rows:
            yield np.array(rows), self._request(inputs)
        if blank:
            yield np.array(blank), np.zeros((len(blank), self.info.dense_dim), np.float32)
        self._warn_of_cuts(shortened, len(texts))

    def _cut(self, text: str, room: int) -> tuple[str, int]:
        """As much of a text as there is room for, and how many tokens that is."""
        spans = self._spans_of(text)
        return (text, len(spans)) if len(spans) <= room else (text[: int(spans[room - 1, 1])], room)

    def _request(self, inputs: list[str]) -> npt.NDArray[np.float32]:
        """The vectors of texts that are not blank, `(n, d)`, in order."""
        options: dict[str, Any] = {"input": inputs, "model": self._server.model}
        if self.dimensions is not None:
            options["dimensions"] = self.dimensions
        if self.encoding_format == "float":  # base64 is what the client asks for, and decodes, by itself
            options["encoding_format"] = "float"
        # AttributeError and TypeError are what the client makes of a reply in another form.
        failures: tuple[type[Exception], ...] = (*self._server.failures, AttributeError, TypeError)
        try:
            data = self._server.client.embeddings.create(**options).data
            vectors = {item.index: np.asarray(item.embedding, np.float32) for item in data}
        except failures as error:
            raise ModelError(self._server.explain(error, kind="list of embeddings", remedies=REMEDIES)) from None
        return self._stacked(vectors, count=len(inputs), sent=len(data))

    def _stacked(
        self, vectors: dict[int, npt.NDArray[np.float32]], *, count: int, sent: int
    ) -> npt.NDArray[np.float32]:
        where = self._server.where
        if sent != count or vectors.keys() != set(range(count)):
            raise ModelError(
                f"{where} sent {sent} vectors (for {len(vectors)} different texts) for {count} texts: "
                "look at its log, or lower batch_size"
            )
        known = self.dimensions or (self._info.dense_dim if self._info else vectors[0].size)
        found = {vector.shape for vector in vectors.values()}
        if found != {(known,)} or known == 0:
            sizes = " and ".join(sorted("x".join(map(str, shape)) or "no" for shape in found))
            raise ModelError(
                f"{where} sent vectors of {sizes} dimensions where one of {known} is expected for each text: "
                "give dimensions= only to a model that can cut its vectors short, and serve it with pooling"
            )
        return np.stack([vectors[i] for i in range(count)])
