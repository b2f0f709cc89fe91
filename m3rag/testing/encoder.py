"""HashEncoder: an encoder without a model, for tests that need vectors and no downloads."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.types import ModelInfo

# Chinese and Japanese write words without spaces: there a character is a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class HashEncoder:
    """A small deterministic fake of `m3rag.encoder.Encoder`.

    Every word (case folded) has a token id and a random unit vector, both from a hash of it. The
    ColBERT vectors of a text are those of its words, the dense vector is their normalised mean,
    and the lexical weight of a word grows with its length. So texts that share words are near each
    other in all three legs, which is all that tests of retrieval need.

    Args:
        dense_dim: Length of the dense vector.
        colbert_dim: Length of a token vector.
        vocab_size: Number of token ids.

    Examples:
        >>> output = HashEncoder().encode_documents(["Ducks swim", "Swim, ducks"])
        >>> output.dense.shape, output.colbert.shape, output.offsets.tolist()
        ((2, 32), (4, 16), [0, 2, 4])
    """

    def __init__(self, *, dense_dim: int = 32, colbert_dim: int = 16, vocab_size: int = 65_536) -> None:
        self._info = ModelInfo(
            name="hash",
            fingerprint=f"hash-1-{dense_dim}-{vocab_size}-{colbert_dim}",
            dense_dim=dense_dim,
            vocab_size=vocab_size,
            colbert_dim=colbert_dim,
        )
        self._words: dict[int, str] = {}

    @property
    def info(self) -> ModelInfo:
        """The name `hash`, a fingerprint of the dimensions, and the dimensions."""
        return self._info

    @property
    def max_length(self) -> int:
        """No text is ever cut."""
        return sys.maxsize

    def token(self, token_id: int) -> str:
        """The word of a token id, if this encoder has met it."""
        return self._words.get(token_id, f"<{token_id}>")

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        """Encode questions, just as passages."""
        return self.encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        """Encode passages; order is kept, an empty sequence gives an empty output."""
        info = self._info
        words = [WORD.findall(text.casefold()) for text in texts]
        dense = np.zeros((len(texts), info.dense_dim), np.float32)
        dense[:, 0] = 1e-6  # a text without words still has a unit vector
        for row, of_text in enumerate(words):
            for word in of_text:
                dense[row] += _direction(word, info.dense_dim)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        tokens = [_direction(word, info.colbert_dim) for of_text in words for word in of_text]
        colbert = np.stack(tokens) if tokens else np.zeros((0, info.colbert_dim), np.float32)
        offsets = np.concatenate([[0], np.cumsum([len(of_text) for of_text in words])]).astype(np.int64)
        return M3Output(dense=dense, lexical=self._lexical(words), colbert=colbert.astype(np.float16), offsets=offsets)

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """Where the ColBERT vectors stand in the text: those of the words, there are no specials."""
        return self.word_spans(text)

    def word_spans(self, text: str) -> npt.NDArray[np.int64]:
        """The words of a text: `(words, 2)` int64 half-open spans."""
        return np.array([match.span() for match in WORD.finditer(text)], np.int64).reshape(-1, 2)

    def tokens(self, text: str, *, role: str = "document") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids `(words,)` of the words of a text, and their spans `(words, 2)`."""
        words = WORD.findall(text.casefold())
        return np.array([self._id(word) for word in words], np.int64), self.word_spans(text)

    def token_weights(self, text: str, *, role: str = "document") -> npt.NDArray[np.float32]:
        """The lexical weight of each of `tokens`, `(words,)`."""
        return np.array([_weight(word) for word in WORD.findall(text.casefold())], np.float32)

    def _id(self, word: str) -> int:
        return zlib.crc32(word.encode()) % self._info.vocab_size

    def _lexical(self, words: Sequence[Sequence[str]]) -> csr_array:
        rows: list[dict[int, float]] = []
        for of_text in words:
            weights: dict[int, float] = {}
            for word in of_text:
                token = self._id(word)
                self._words[token] = word
                weights[token] = max(weights.get(token, 0.0), _weight(word))
            rows.append(dict(sorted(weights.items())))
        data = np.array([weight for row in rows for weight in row.values()], np.float32)
        indices = np.array([token for row in rows for token in row], np.int32)
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        return csr_array((data, indices, indptr), shape=(len(words), self._info.vocab_size))


def _weight(word: str) -> float:
    return min(len(word), 10) / 10


@lru_cache(maxsize=100_000)
def _direction(word: str, size: int) -> npt.NDArray[np.float32]:
    vector = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(size).astype(np.float32)
    vector /= np.linalg.norm(vector)
    vector.flags.writeable = False
    return vector
