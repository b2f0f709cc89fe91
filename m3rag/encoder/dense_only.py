"""What encoders of one leg share: the `Encoder` protocol, from dense vectors alone."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from m3rag._copied import CopiedAsItself
from m3rag.encoder.finite import require_finite
from m3rag.encoder.inputs import Progress, Role, require_role, require_texts
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.encoder.spans import Spans, clean
from m3rag.errors import ConfigurationError, ModelError
from m3rag.output import M3Output
from m3rag.types import ModelInfo

log = logging.getLogger(__name__)

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""The numbers of some texts, and their vectors."""


class DenseOnlyEncoder(AsyncEncoding, CopiedAsItself, ABC):
    """An `Encoder` that gives the dense leg and no other, for use in mode `dense`.

    A subclass says how vectors are made (`_embed`), what model makes them (`info`), and how long a
    text may be (`max_length`, `word_spans`).

    Attributes:
        normalize: Whether vectors are brought to unit length, so that scores are cosines.
    """

    normalize: bool = True

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """The model's name, fingerprint and dimension; it has no vocabulary and no token vectors."""

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Most tokens of a text, specials and instruction included; what is longer is cut."""

    @abstractmethod
    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens of a text of any length, white space left out."""

    @abstractmethod
    def _embed(self, texts: list[str], role: Role) -> Iterator[Batch]:
        """The vectors of all texts, each once, in any order; not yet normalised."""

    def encode_queries(self, texts: Sequence[str], *, progress: Progress | None = None) -> M3Output:
        """Encode questions.

        Args:
            texts: Any number of strings; empty strings are allowed.
            progress: Called with the number of texts done since the last call.

        Returns:
            Dense vectors in the order given; `lexical` and `colbert` have no columns.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
            ModelError: If the model fails.
        """
        return M3Output.from_dense(self.encode_dense(texts, role="query", progress=progress))

    def encode_documents(self, texts: Sequence[str], *, progress: Progress | None = None) -> M3Output:
        """Encode passages; as `encode_queries`, with the passages' instruction."""
        return M3Output.from_dense(self.encode_dense(texts, role="document", progress=progress))

    def encode_dense(
        self, texts: Sequence[str], *, role: Role, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """The dense vectors, `(n, d)` float32; raises as `encode_queries`."""
        require_texts(texts)
        require_role(role)
        dense = np.zeros((len(texts), self.info.dense_dim), np.float32)
        for rows, vectors in self._embed([clean(text) for text in texts], role):
            dense[rows] = self._checked(vectors)
            if progress is not None:
                progress(len(rows))
        return dense

    def token_spans(self, text: str) -> Spans:
        """Character spans of the ColBERT vectors, of which there are none: `(0, 2)` int64."""
        return np.zeros((0, 2), np.int64)

    def token(self, token_id: int) -> str:
        """Of a dense-only model no token has a weight.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"the model {self.info.name} gives no lexical weights, so there is no token {token_id} to show: "
            "leave the lexical leg out, or choose an M3 model such as BAAI/bge-m3"
        )

    def _warn_of_cuts(self, cut: int, texts: int) -> None:
        if cut:
            log.warning(
                "%d of %d texts are longer than max_length=%d tokens and were cut; chunk them, or raise max_length",
                cut,
                texts,
                self.max_length,
            )

    def _checked(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if vectors.shape[1:] != (self.info.dense_dim,):
            raise ModelError(
                f"{self.info.name} gave vectors of shape {vectors.shape[1:]}, not of its dimension "
                f"{self.info.dense_dim}: it is not the model it was"
            )
        require_finite(self.info.name, vectors)
        if not self.normalize:
            return vectors
        # An empty text may have the zero vector, which has no direction and stays what it is.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: npt.NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit
