"""From a weight a position to a weight a token: the lexical representation as one CSR matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Rows = npt.NDArray[np.int64]
TokenWeights = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""(batch row, token id, weight) of every entry, sorted by row, then token."""


def max_per_token(
    ids: Sequence[npt.NDArray[np.int64]],
    weights: npt.NDArray[np.float32],
    dropped: int,
    unused_ids: npt.NDArray[np.int64],
) -> TokenWeights:
    """Keep the largest weight of each token of each text (section 3.2 of arXiv 2402.03216).

    Args:
        ids: Token ids of each text of a batch, specials and prefix included.
        weights: `(B, T)` float32 weight of each position, padded on the right.
        dropped: Positions at the start (special and prefix tokens) that never count.
        unused_ids: Token ids that never count.
    """
    lengths = np.array([len(i) for i in ids], np.int64)
    rows = np.repeat(np.arange(len(ids)), lengths)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    tokens = np.concatenate(ids) if len(ids) else np.zeros(0, np.int64)
    values = weights[rows, positions]
    kept = (values > 0) & (positions >= dropped) & ~np.isin(tokens, unused_ids)
    rows, tokens, values = rows[kept], tokens[kept], values[kept]
    order = np.lexsort((tokens, rows))
    rows, tokens, values = rows[order], tokens[order], values[order]
    if not len(rows):
        return rows, tokens, values
    new = np.concatenate([[True], (np.diff(rows) != 0) | (np.diff(tokens) != 0)])
    first = np.flatnonzero(new)
    return rows[first], tokens[first], np.maximum.reduceat(values, first)


class LexicalRows:
    """Collects the rows of a CSR matrix in any order, a batch at a time."""

    def __init__(self, n: int, vocab_size: int) -> None:
        self._shape = (n, vocab_size)
        self._rows: list[Rows] = [np.zeros(0, np.int64)]
        self._tokens: list[Rows] = [np.zeros(0, np.int64)]
        self._values: list[npt.NDArray[np.float32]] = [np.zeros(0, np.float32)]

    def add(self, rows: Rows, entries: TokenWeights) -> None:
        """Add a batch whose row `i` is row `rows[i]` of the matrix."""
        batch_rows, tokens, values = entries
        self._rows.append(rows[batch_rows])
        self._tokens.append(tokens)
        self._values.append(values)

    def to_csr(self) -> csr_array[np.float32, tuple[int, int]]:
        """The matrix `(n, vocab)`, float32, tokens sorted within each row."""
        rows = np.concatenate(self._rows)
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=self._shape[0])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        tokens = np.concatenate(self._tokens)[order]
        return csr_array((np.concatenate(self._values)[order], tokens, indptr), shape=self._shape)
