"""GivenEmbeddings: the model of an index whose dense vectors are brought by the caller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError
from m3rag.types import ModelInfo


class GivenEmbeddings:
    """An `Encoder` that cannot encode: what it stands for is the embeddings' dimension.

    Nothing else is known of the embedding model, so an index is not protected from another one of the same
    dimension.

    Args:
        dense_dim: Of the embeddings; >= 1.

    Raises:
        ConfigurationError: If the dimension is below 1.
    """

    def __init__(self, dense_dim: int) -> None:
        if dense_dim < 1:
            raise ConfigurationError(f"dense_dim is the embeddings' dimension, at least 1, got {dense_dim}")
        self._info = ModelInfo(f"given-{dense_dim}", f"given-1-{dense_dim}", dense_dim, 0, 0)

    @property
    def info(self) -> ModelInfo:
        """A name and fingerprint made of the dimension; no vocabulary and no token vectors."""
        return self._info

    @property
    def max_length(self) -> int:
        """Whoever embeds cuts."""
        return sys.maxsize

    def encode_queries(self, texts: Sequence[str]) -> NoReturn:
        """Refused.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"the index holds given embeddings of {self._info.dense_dim} dimensions, and no model that makes them: "
            "bring query_embedding, and nodes with their embedding"
        )

    def encode_documents(self, texts: Sequence[str]) -> NoReturn:
        """Refused, as `encode_queries`."""
        self.encode_queries(texts)

    def token(self, token_id: int) -> NoReturn:
        """Refused: no token has a weight.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"given embeddings have no lexical weights, so there is no token {token_id} to show")

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """There are no token vectors: `(0, 2)` int64."""
        return np.zeros((0, 2), np.int64)

    def word_spans(self, text: str) -> npt.NDArray[np.int64]:
        """Refused: the embedding model's tokens are not known."""
        self.encode_queries([text])
