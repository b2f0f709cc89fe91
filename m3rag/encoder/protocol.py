"""What every stage after the encoder may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from m3rag.output import M3Output
from m3rag.types import ModelInfo


@runtime_checkable
class Encoder(Protocol):
    """Texts in, M3Output out. `m3rag.testing.HashEncoder` is a small fake of it."""

    @property
    def info(self) -> ModelInfo:
        """The model's name, fingerprint and dimensions."""

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials and prefix included; what is longer is cut."""

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        """Encode questions; order is kept, an empty sequence gives an empty output."""

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        """Encode passages; order is kept, an empty sequence gives an empty output."""

    def token(self, token_id: int) -> str:
        """The readable token of an id, as it stands in `M3Output.lexical`.

        Raises:
            ConfigurationError: If the model has no lexical leg.
        """

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """Where the ColBERT vectors of `encode_documents([text])` stand in the text.

        Returns:
            `(tokens, 2)` int64, row `i` the half-open character span of vector `i`; special tokens
            have an empty span. A model without token vectors gives no rows.
        """

    def word_spans(self, text: str) -> npt.NDArray[np.int64]:
        """The tokens of a text of any length, without specials: `(tokens, 2)` int64 spans.

        The chunker counts with these, so that a chunk's length is exact for this model. Spans are
        in order, do not overlap, and leave white space out; a token without characters of its own
        (the second of two that one character became) has an empty span, since it takes room too.
        """


@runtime_checkable
class AsyncEncoder(Encoder, Protocol):
    """An encoder whose concurrent callers share forward passes, such as any `AsyncEncoding`."""

    async def aencode_queries(self, texts: Sequence[str]) -> M3Output:
        """As `encode_queries`, without blocking the event loop."""

    async def aencode_documents(self, texts: Sequence[str]) -> M3Output:
        """As `encode_documents`, without blocking the event loop."""
