"""BM25Index: BM25 over a list of texts in memory, the baseline that every table of m3rag is read against."""

from __future__ import annotations

from collections.abc import Sequence

from m3rag.bm25.backends import Backend, Scorer, require_backend, scorer
from m3rag.bm25.formula import Formula, Method
from m3rag.bm25.postings import Postings, bag_of, best
from m3rag.bm25.tokenizers import Tokenize, english_tokenizer
from m3rag.errors import InputError
from m3rag.store.parts import check_k


class BM25Index:
    """An in-memory BM25 index of texts that do not change.

    Example:
        >>> index = BM25Index().fit(["Ducks swim.", "Geese fly south."])
        >>> [i for i, score in index.search(["swimming ducks"], k=1)[0]]
        [0]

    Args:
        tokenize: Splits a text into tokens. By default the English pipeline; `word_tokenizer()`
            takes any language, also those written without spaces.
        method: `lucene` or `okapi`, see `Formula`.
        k1: See `Formula`.
        b: See `Formula`.
        backend: `bm25s`, or `rank-bm25` which gives the same scores more slowly.

    Raises:
        ImportError: If the backend (or bm25s, for the English pipeline) is not installed.
        ConfigurationError: If an option is out of range.
    """

    def __init__(
        self,
        *,
        tokenize: Tokenize | None = None,
        method: Method = "lucene",
        k1: float = 1.5,
        b: float = 0.75,
        backend: Backend = "bm25s",
    ) -> None:
        require_backend(backend)
        self._backend = backend
        self._formula = Formula(method=method, k1=k1, b=b)
        self._tokenize = tokenize or english_tokenizer()
        self._vocabulary: dict[str, int] = {}
        self._postings: Postings | None = None
        self._scorer: Scorer | None = None

    def fit(self, texts: Sequence[str]) -> BM25Index:
        """Index texts, replacing those indexed before.

        Returns:
            The index itself.
        """
        vocabulary: dict[str, int] = {}
        bags = [bag_of(self._tokenize(text), vocabulary) for text in texts]
        self._vocabulary = vocabulary
        self._postings = Postings.of(bags, vocabulary_size=len(vocabulary))
        self._scorer = scorer(self._backend, self._postings, self._formula)
        return self

    def search(self, queries: Sequence[str], *, k: int = 10) -> list[list[tuple[int, float]]]:
        """For each query the positions of the best `k` texts with their scores.

        Best first, ties by position; texts that share no token with the query are not returned.

        Raises:
            InputError: If nothing was indexed yet, or `k` is no whole number above 0.
        """
        if self._postings is None or self._scorer is None:
            raise InputError("the BM25 index is empty: call fit(texts) before search")
        check_k(k)
        return [self._search_one(query, k, self._postings, self._scorer) for query in queries]

    def _search_one(self, query: str, k: int, postings: Postings, by: Scorer) -> list[tuple[int, float]]:
        tokens = [self._vocabulary[token] for token in self._tokenize(query) if token in self._vocabulary]
        if not tokens:
            return []
        scores = by.scores(tokens)
        return [(int(i), float(scores[i])) for i in best(scores, postings.sharing(tokens), k)]
