"""The two packages that score: bm25s, and rank-bm25 for those who know it; their scores are the same."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np

from m3rag.bm25.formula import Floats, Formula
from m3rag.bm25.postings import Postings
from m3rag.errors import ConfigurationError

Backend = Literal["bm25s", "rank-bm25"]
"""The library that scores; `rank-bm25` gives the same scores more slowly."""


class Scorer(Protocol):
    """BM25 scores of a question with all texts of some postings."""

    def scores(self, tokens: Sequence[int]) -> Floats:
        """The scores, `(n,)`; 0 where a text shares no token.

        Args:
            tokens: Of the question; a token that comes twice counts twice. Each is in the
                vocabulary of the postings, and there is at least one.
        """


def scorer(backend: Backend, postings: Postings, formula: Formula) -> Scorer:
    """Prepare the scores of some postings.

    Raises:
        ImportError: If the package is not installed.
    """
    return (BM25sScorer if backend == "bm25s" else RankBM25Scorer)(postings, formula)


def require_backend(backend: Backend) -> None:
    """Refuse a backend that cannot be used, before there is anything to score.

    Raises:
        ConfigurationError: If there is none of the name.
        ImportError: If its package is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigurationError(f"backend {backend!r} is unknown: choose one of {', '.join(get_args(Backend))}")
    package(backend.replace("-", "_"))


def package(name: str) -> Any:
    """One of the packages of the extra `bm25`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f'BM25 needs the package {name.replace("_", "-")}: pip install "m3rag[bm25]"') from error


class BM25sScorer:
    """bm25s: every token's score in every text is computed beforehand, a question only adds them up.

    The table of scores is filled here at once in numpy, a tenth of the time that bm25s takes text by
    text; float32, as it does.
    """

    def __init__(self, postings: Postings, formula: Formula) -> None:
        """Fill the table of scores."""
        lengths = postings.relative_lengths
        idf = np.repeat(formula.idf(postings.frequencies, len(lengths)), postings.frequencies)
        weights = idf * formula.saturation(postings.counts, lengths[postings.rows])
        self._model = package("bm25s").BM25()
        self._model.nonoccurrence_array = None
        self._model.scores = {
            "data": weights.astype(np.float32),
            "indices": postings.rows,
            "indptr": postings.starts,
            "num_docs": len(lengths),
        }

    def scores(self, tokens: Sequence[int]) -> Floats:
        """The scores, `(n,)`."""
        found: Floats = self._model.get_scores_from_ids(list(tokens)).astype(np.float64)
        return found


class RankBM25Scorer:
    """rank-bm25: counts as dictionaries, every text scored anew by each question; float64."""

    def __init__(self, postings: Postings, formula: Formula) -> None:
        """Hand the texts to `BM25Okapi`, with the idf and the scale of the formula."""
        self._texts = len(postings.lengths)
        self._model: Any = None
        if not len(postings.rows):  # rank-bm25 divides by the number of tokens
            return
        self._model = package("rank_bm25").BM25Okapi(_texts(postings), k1=formula.k1, b=formula.b)
        self._scale = 1.0
        if formula.method == "lucene":
            idf = formula.idf(postings.frequencies, self._texts)
            self._model.idf = {token: float(idf[token]) for token in self._model.idf}
            self._scale = 1 / (formula.k1 + 1)

    def scores(self, tokens: Sequence[int]) -> Floats:
        """The scores, `(n,)`."""
        if self._model is None:
            return np.zeros(self._texts)
        with np.errstate(invalid="ignore"):  # with b = 1, a text without tokens comes out as 0 / 0
            found: Floats = self._model.get_scores(tokens) * self._scale
        return np.nan_to_num(found)


def _texts(postings: Postings) -> list[list[int]]:
    """The token ids of each text, in ascending order instead of their own."""
    tokens = np.repeat(np.arange(len(postings.starts) - 1), postings.frequencies)
    order = np.argsort(postings.rows, kind="stable")
    spread = np.repeat(tokens[order], postings.counts[order])
    return [part.tolist() for part in np.split(spread, np.cumsum(postings.lengths)[:-1])]
