"""BM25, the baseline that every table of m3rag is read against."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from m3rag.errors import InputError

Tokenize = Callable[[str], Sequence[str]]


def english_tokenizer() -> Tokenize:
    """The English pipeline of bm25s: lower case, words of two letters and more, English stop words.

    Words are stemmed (Snowball) where the package `PyStemmer` is installed, as MTEB does, and left
    as they are where it is not; `is_stemming()` says which.

    Raises:
        ImportError: If bm25s is not installed.
    """
    bm25s = _bm25s()
    stemmer = importlib.import_module("Stemmer").Stemmer("english") if is_stemming() else None

    def tokenize(text: str) -> list[str]:
        words: list[list[str]] = bm25s.tokenize(
            [text], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        return words[0]

    return tokenize


def is_stemming() -> bool:
    """Whether the English pipeline stems: only where `PyStemmer` is installed."""
    return importlib.util.find_spec("Stemmer") is not None


class BM25Index:
    """An in-memory BM25 index (bm25s; Lucene's variant with k1 = 1.5 and b = 0.75).

    Example:
        >>> index = BM25Index().fit(["Ducks swim.", "Geese fly south."])
        >>> [i for i, score in index.search(["swimming ducks"], k=1)[0]]
        [0]

    Args:
        tokenize: Splits a text into tokens. By default the English pipeline; languages written
            without spaces need another, such as the encoder's own tokens (`encoder.word_spans`).

    Raises:
        ImportError: If bm25s is not installed.
    """

    def __init__(self, *, tokenize: Tokenize | None = None) -> None:
        self._tokenize = tokenize or english_tokenizer()
        self._bm25s = _bm25s()
        self._index: Any = None
        self._size: int | None = None

    def fit(self, texts: Sequence[str]) -> BM25Index:
        """Index texts, replacing those indexed before.

        Returns:
            The index itself.
        """
        tokens = [list(self._tokenize(text)) for text in texts]
        self._size = len(texts)
        self._index = None
        # bm25s divides by the mean length, so that it cannot index nothing but empty texts.
        if any(tokens):
            self._index = self._bm25s.BM25()
            self._index.index(tokens, show_progress=False)
        return self

    def search(self, queries: Sequence[str], *, k: int = 10) -> list[list[tuple[int, float]]]:
        """For each query the positions of the best `k` texts with their scores.

        Best first, ties by position; texts that share no token with the query are not returned.

        Raises:
            InputError: If nothing was indexed yet, or `k` is not positive.
        """
        if self._size is None:
            raise InputError("the BM25 index is empty: call fit(texts) before search")
        if k <= 0:
            raise InputError(f"k must be at least 1, got {k}")
        return [self._search_one(query, k) for query in queries]

    def _search_one(self, query: str, k: int) -> list[tuple[int, float]]:
        tokens = list(self._tokenize(query))
        if self._index is None or not tokens:
            return []
        scores = self._index.get_scores(tokens)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(i), float(scores[i])) for i in best if scores[i] > 0]


def _bm25s() -> Any:
    try:
        return importlib.import_module("bm25s")
    except ModuleNotFoundError as error:
        raise ImportError('BM25 needs the package bm25s: pip install "m3rag[bm25]"') from error
