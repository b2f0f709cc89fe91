"""Any LangChain Embeddings as an encoder of the dense leg, and a collection's encoder as Embeddings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from m3rag.encoder.dense_only import Batch, DenseOnlyEncoder
from m3rag.encoder.fingerprint import fingerprint
from m3rag.encoder.spans import Spans, estimated_spans
from m3rag.errors import InputError, ModelError
from m3rag.langchain.embeddings import M3Embeddings
from m3rag.langchain.model import listed
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from m3rag.collection import Collection
    from m3rag.encoder.inputs import Role
    from m3rag.encoder.protocol import Encoder

PROBE = "How many ducks swim on the pond in the park?"

PROBED = 24
"""Components of the probe's vector that a fingerprint holds."""

ALIKE = 0.99
"""Least cosine of two probes of one model: servers give the same text vectors that differ a little."""

NAMES = ("model", "model_name", "model_id", "deployment")
"""What classes of Embeddings call the name of their model."""


class EmbeddingsEncoder(DenseOnlyEncoder):
    """LangChain Embeddings as an `Encoder` of the dense leg.

    One text is embedded when it is made: it gives the dimension, and stands in the fingerprint with the name of
    the class and of the model. What the Embeddings raise comes through as it is.

    Args:
        embeddings: Any Embeddings. They cut what is too long for them by themselves.

    Raises:
        InputError: If it is none.
        ModelError: If it gives no vectors.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        if not isinstance(embeddings, Embeddings):
            raise InputError(
                f"embedding is a {type(embeddings).__name__}, must be an Embeddings of LangChain, such as "
                'M3Embeddings(model="BAAI/bge-m3")'
            )
        self.embeddings = embeddings
        given = next((name for key in NAMES if isinstance(name := getattr(embeddings, key, None), str) and name), "")
        kind = type(embeddings)
        name = f"{kind.__name__} {given}".rstrip()
        probe = self._vectors([embeddings.embed_query(PROBE)], texts=1)[0]
        what = {"class": f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}", "model": given}
        self._info = ModelInfo(
            name=name,
            fingerprint=f"{fingerprint({**what, 'dimension': probe.size})}-{_written(probe)}",
            dense_dim=probe.size,
            vocab_size=0,
            colbert_dim=0,
        )

    @property
    def info(self) -> ModelInfo:
        """The name of the class and of the model, and the dimension."""
        return self._info

    @property
    def max_length(self) -> int:
        """How long a text may be only the Embeddings know."""
        return sys.maxsize

    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens, by estimate."""
        return estimated_spans(text)

    def recognise(self, made: ModelInfo) -> None:
        """Take over the fingerprint of an index that the same model made, whose probe may differ by rounding."""
        ours, _, probe = self._info.fingerprint.partition("-")
        theirs, _, other = made.fingerprint.partition("-")
        if ours == theirs and _cosine(probe, other) >= ALIKE:
            self._info = replace(self._info, fingerprint=made.fingerprint)

    def __repr__(self) -> str:
        return f"EmbeddingsEncoder({self._info.name!r})"

    def _embed(self, texts: list[str], role: Role) -> Iterator[Batch]:
        if not texts:
            return
        if role == "query":
            found = [self.embeddings.embed_query(text) for text in texts]
        else:
            found = self.embeddings.embed_documents(texts)
        yield np.arange(len(texts)), self._vectors(found, texts=len(texts))

    def _vectors(self, found: Any, *, texts: int) -> npt.NDArray[np.float32]:
        try:
            vectors = np.asarray(found, np.float32)
        except (TypeError, ValueError):
            vectors = np.zeros(0, np.float32)
        if vectors.ndim != 2 or len(vectors) != texts or not vectors.shape[1]:
            raise ModelError(
                f"{type(self.embeddings).__name__} gave no vector of one length for each of {texts} texts: "
                "look at what its embed_documents and embed_query return"
            )
        return vectors


class EncoderEmbeddings(Embeddings):
    """The dense leg of a collection's encoder, which is loaded when a text is first embedded."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of Python floats for each passage, in order."""
        vectors: list[list[float]] = self.collection.encoder.encode_documents(listed(texts)).dense.tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        vector: list[float] = self.collection.encoder.encode_queries([text]).dense[0].tolist()
        return vector


def encoder_of(embedding: Embeddings) -> Encoder:
    """The encoder behind M3Embeddings or a store's own embeddings, shared; any others as one of the dense leg.

    Raises:
        InputError: If it is no Embeddings.
        ModelError: If it gives no vectors.
    """
    if isinstance(embedding, EncoderEmbeddings):
        return embedding.collection.encoder
    return embedding.loaded() if isinstance(embedding, M3Embeddings) else EmbeddingsEncoder(embedding)


def _written(vector: npt.NDArray[np.float32]) -> str:
    head = vector[:PROBED]
    scale = float(np.abs(head).max()) or 1.0
    return (head / scale * 127).round().astype(np.int8).tobytes().hex()


def _cosine(one: str, other: str) -> float:
    try:
        a, b = (np.frombuffer(bytes.fromhex(text), np.int8).astype(np.float64) for text in (one, other))
    except ValueError:
        return 0.0
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if a.shape == b.shape and lengths else 0.0
