"""Texts as packed tokens, and which of them share a forward pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3rag.encoder.checkpoint import Pooling
from m3rag.encoder.tokenizer import Ids

MCLS_TOKENS = 256
"""With MCLS, a text has one CLS before each so many of its tokens (arXiv 2402.03216, appendix B.2)."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokens of texts that lie one after the other, without padding.

    Attributes:
        ids: `(tokens,)` int64, specials and prefix included.
        lengths: `(texts,)` int64.
        keep: `(tokens,)` bool, True on the tokens that get a ColBERT vector and may carry a lexical
            weight: neither a CLS nor the prefix.
        pool: `(tokens,)` float32, the weight of each token's state in its text's dense vector.
    """

    ids: Ids
    lengths: Rows
    keep: npt.NDArray[np.bool_]
    pool: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """`(tokens,)` the place of each token in its text, from 0."""
        return token_numbers(self.ids, self.lengths, padding=None)

    @property
    def owners(self) -> Rows:
        """`(tokens,)` the text that each token belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def kept(self) -> Rows:
        """`(texts,)` how many ColBERT vectors each text gets."""
        return np.bincount(self.owners[self.keep], minlength=len(self)).astype(np.int64)

    def take(self, rows: Rows) -> Batch:
        """The batch of some of the texts, in the order given."""
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        lengths = self.lengths[rows]
        firsts = np.cumsum(lengths) - lengths
        at = np.arange(int(lengths.sum())) + np.repeat(starts - firsts, lengths)
        return Batch(self.ids[at], lengths, self.keep[at], self.pool[at])


def token_numbers(ids: Ids, lengths: Rows, *, padding: int | None) -> Rows:
    """The number of each token in its text as the network counts them, from 0: `(tokens,)`.

    RoBERTa and its kin do not count their padding token, not even where a text holds it as a literal
    `<pad>`: it is number -1, and the tokens behind it are numbered as if it were not there.

    Args:
        ids: `(tokens,)`, texts one after the other.
        lengths: `(texts,)`.
        padding: The id of the token that is not counted; None where all are.
    """
    counted = np.ones(len(ids), bool) if padding is None else ids != padding
    so_far = np.concatenate([[0], np.cumsum(counted)])
    before = np.repeat(so_far[np.cumsum(lengths) - lengths], lengths)
    return np.where(counted, so_far[:-1] - before, -1)


def pack(ids: Sequence[Ids], *, dropped: int, pooling: Pooling, mcls: bool = False) -> Batch:
    """Lay texts one after the other.

    Args:
        ids: Tokens of each text, a CLS first and an end token last.
        dropped: Tokens at the start of each text (CLS and prefix) without a ColBERT vector.
        pooling: Which tokens make the dense vector.
        mcls: Put a CLS before each `MCLS_TOKENS` tokens and average them; `pooling` is not used then.
    """
    if mcls:
        ids = [_with_more_cls(text) for text in ids]
    lengths = np.array([len(text) for text in ids], np.int64)
    batch = Batch(
        np.concatenate([*ids, np.zeros(0, np.int64)]).astype(np.int64),
        lengths,
        np.ones(int(lengths.sum()), bool),
        np.zeros(int(lengths.sum()), np.float32),
    )
    positions = batch.positions
    batch.keep[:] = positions >= dropped
    if mcls:
        is_cls = (positions % (MCLS_TOKENS + 1) == 0) & (positions < np.repeat(lengths - 1, lengths))
        batch.keep[is_cls] = False
        batch.pool[is_cls] = 1 / np.repeat(np.maximum(np.ceil((lengths - 1) / (MCLS_TOKENS + 1)), 1), lengths)[is_cls]
    elif pooling == "cls":
        batch.pool[positions == 0] = 1
    elif pooling == "mean":
        batch.pool[:] = 1 / np.repeat(lengths, lengths)
    else:
        batch.pool[np.cumsum(lengths) - 1] = 1
    return batch


def _with_more_cls(text: Ids) -> Ids:
    content = text[1:-1]
    return np.insert(text, np.arange(MCLS_TOKENS, len(content), MCLS_TOKENS) + 1, text[0])


def plan_batches(lengths: npt.NDArray[np.integer], *, batch_tokens: int, max_texts: int = sys.maxsize) -> list[Rows]:
    """Group texts into batches of at most so many tokens.

    Texts are sorted by length, longest first, so that texts of like length share a batch, and one
    that will not fit in memory is met at once. A text longer than the budget is a batch of its own.

    Args:
        lengths: `(n,)` tokens of each text.
        batch_tokens: Most tokens of a batch.
        max_texts: Most texts of a batch.

    Returns:
        Index arrays that together hold each of `0..n-1` once. Equal lengths keep their order.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable").astype(np.int64)
    ends = np.cumsum(np.asarray(lengths)[order])
    batches = []
    start, before = 0, 0
    while start < len(order):
        end = max(int(np.searchsorted(ends, before + batch_tokens, side="right")), start + 1)
        end = min(end, start + max_texts)
        batches.append(order[start:end])
        start, before = end, int(ends[end - 1])
    return batches
