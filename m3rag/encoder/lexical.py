"""From a weight a position to a weight a token: the lexical representation as one CSR matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

TOKEN_BITS = 20
WEIGHT_BITS = 31
MAX_VOCAB = 1 << TOKEN_BITS
MAX_TEXTS = 1 << (63 - TOKEN_BITS - WEIGHT_BITS)
"""Most texts of a batch: text, token and weight share one 64-bit key."""


class TokenWeights(NamedTuple):
    """Entries of a batch's lexical matrix, sorted by text, then token: text, token, weight > 0."""

    rows: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def max_per_token(
    owners: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]
) -> TokenWeights:
    """Keep the largest weight of each token of each text (section 3.2 of arXiv 2402.03216).

    One sort does it: the bits of floats that are not negative sort as the floats do, so text, token
    and weight fit one 64-bit key, and the last key of each text and token holds the maximum.

    Args:
        owners: `(n,)` text of each position, less than `MAX_TEXTS`.
        ids: `(n,)` token of each position, less than `MAX_VOCAB`.
        weights: `(n,)`; what is not above 0 is left out. NaN is kept, so that it can be told of.
    """
    kept = np.flatnonzero(~(weights <= 0))
    bits = np.abs(weights[kept]).view(np.int32).astype(np.int64)  # NaN may have a sign
    keys = np.sort((owners[kept] << TOKEN_BITS | ids[kept]) << WEIGHT_BITS | bits)
    entries = keys >> WEIGHT_BITS
    last = np.append(entries[1:] != entries[:-1], True)[: len(keys)]
    entries = entries[last]
    best = (keys[last] & ((1 << WEIGHT_BITS) - 1)).astype(np.int32).view(np.float32)
    return TokenWeights(entries >> TOKEN_BITS, (entries & (MAX_VOCAB - 1)).astype(np.int32), best)


class LexicalRows:
    """Collects the rows of a CSR matrix in any order, a batch at a time."""

    def __init__(self, n: int, vocab_size: int) -> None:
        self._shape = (n, vocab_size)
        self._rows: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._tokens: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._weights: list[npt.NDArray[np.float32]] = [np.zeros(0, np.float32)]

    def add(self, rows: npt.NDArray[np.int64], entries: TokenWeights) -> None:
        """Add a batch whose row `i` is row `rows[i]` of the matrix."""
        self._rows.append(rows[entries.rows])
        self._tokens.append(entries.tokens)
        self._weights.append(entries.weights)

    def to_csr(self) -> csr_array:
        """The matrix `(n, vocab)`, float32, tokens sorted within each row."""
        rows = np.concatenate(self._rows)
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=self._shape[0])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        tokens, weights = np.concatenate(self._tokens)[order], np.concatenate(self._weights)[order]
        return csr_array((weights, tokens, indptr), shape=self._shape)
