"""Postings: how often each token stands in each text, the counts that every BM25 score comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Bag = npt.NDArray[np.int32]
"""The tokens of one text without their order: `(2, n)` int32, ascending token ids over their counts."""

Rows = npt.NDArray[np.int64]


def bag_of(tokens: Sequence[str], vocabulary: MutableMapping[str, int]) -> Bag:
    """Count the tokens of a text, giving those that the vocabulary lacks the next ids."""
    counts = Counter(vocabulary.setdefault(token, len(vocabulary)) for token in tokens)
    return np.array(sorted(counts.items()), np.int32).reshape(-1, 2).T


@dataclass(frozen=True, slots=True)
class Postings:
    """The counts of `n` texts over a vocabulary of `v` tokens, by token.

    Attributes:
        starts: `(v + 1,)`; the postings of token `t` are `starts[t]` to `starts[t + 1]`.
        rows: `(postings,)` int32, the text of each posting, ascending within a token.
        counts: `(postings,)` int32, how often the token stands in that text.
        lengths: `(n,)` int64, tokens of each text.
    """

    starts: Rows
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    lengths: Rows

    @classmethod
    def of(cls, bags: Sequence[Bag], *, vocabulary_size: int) -> Postings:
        """Turn the bags of all texts round."""
        flat = np.concatenate([np.zeros((2, 0), np.int32), *bags], axis=1)
        ends = np.concatenate([[0], np.cumsum([bag.shape[1] for bag in bags], dtype=np.int64)])
        totals = np.concatenate([[0], np.cumsum(flat[1], dtype=np.int64)])
        by_text = csr_array((flat[1], flat[0], ends), shape=(len(bags), vocabulary_size))
        by_token = by_text.tocsc()
        return cls(
            starts=by_token.indptr.astype(np.int64),
            rows=by_token.indices.astype(np.int32, copy=False),
            counts=by_token.data,
            lengths=totals[ends[1:]] - totals[ends[:-1]],
        )

    @property
    def frequencies(self) -> Rows:
        """`(v,)` int64: how many texts have each token."""
        return np.diff(self.starts)

    @property
    def relative_lengths(self) -> npt.NDArray[np.float64]:
        """`(n,)`: the length of each text divided by the mean; 1 where no text has a token."""
        total = self.lengths.sum()
        return self.lengths * (len(self.lengths) / total) if total else np.ones(len(self.lengths))

    def sharing(self, tokens: Sequence[int]) -> Rows:
        """The texts that have at least one of some tokens, ascending."""
        shares = np.zeros(len(self.lengths), bool)
        for token in set(tokens):
            shares[self.rows[self.starts[token] : self.starts[token + 1]]] = True
        return np.flatnonzero(shares)


def best(scores: npt.NDArray[np.float64], rows: Rows, k: int) -> Rows:
    """The `k` of some rows with the highest scores, best first, ties by row.

    Args:
        scores: `(n,)` of all rows.
        rows: Which of them may be taken, ascending.
        k: At most so many.
    """
    of_rows = scores[rows]
    if k < len(rows):
        # All that tie with the k-th are kept, so that the stable sort decides between them.
        kept = of_rows >= np.partition(of_rows, len(rows) - k)[len(rows) - k]
        rows, of_rows = rows[kept], of_rows[kept]
    return rows[np.argsort(-of_rows, kind="stable")[:k]]
