"""Which tokens of a question a hit matched, and what each gave to its lexical score."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from m3rag.errors import InputError


class TokenMatch(NamedTuple):
    """A token that stands in the query and in the passage, and the product of its two weights."""

    token: str
    contribution: float


def top_tokens(
    query: csr_array, passage: csr_array, token: Callable[[int], str], *, limit: int | None = None
) -> list[TokenMatch]:
    """The tokens behind a lexical score, the largest contribution first, ties by token id.

    Without a limit the contributions sum to the score of the lexical leg (`hit.scores.lexical`), to
    the precision of float32.

    Args:
        query: `(1, vocab)`, the row of `M3Output.lexical` of the question.
        passage: `(1, vocab)`, the row of the passage, as from `store.representations([chunk.id])`.
        token: Makes a token id readable, such as `M3Encoder.token`.
        limit: Most tokens to return; None for all of them.

    Raises:
        InputError: If either is not a single row, or the rows come from different vocabularies.
    """
    if query.shape != passage.shape or query.shape[0] != 1:
        raise InputError(
            f"top_tokens compares one row with one row of the same vocabulary, got {query.shape} and {passage.shape}: "
            "take output[i].lexical from the same encoder for both"
        )
    product = csr_array(query.multiply(passage))
    contributions = product.data.astype(np.float64)
    order = np.lexsort((product.indices, -contributions))[:limit]
    return [TokenMatch(token(int(product.indices[i])), float(contributions[i])) for i in order]
