"""The order that a reranker's scores give hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from m3rag.encoder.inputs import require_whole
from m3rag.errors import InputError
from m3rag.retrieval.options import count
from m3rag.types import Hit


def require_top_n(top_n: int | None) -> None:
    """Refuse to look at no hit.

    Raises:
        ConfigurationError: If `top_n` is given, and no whole number or below 1.
    """
    if top_n is not None:
        require_whole("top_n", top_n, least=1)


def require_rerankable(query: str, k: int | None) -> None:
    """Refuse what cannot be reranked.

    Raises:
        InputError: If the query is empty, or `k` is given, and no whole number or below 1.
    """
    if not query.strip():
        raise InputError("the query is empty: rerank for a question of at least one word")
    count("k", k)


def reordered(
    hits: Sequence[Hit],
    scores: npt.NDArray[np.float32],
    *,
    k: int | None,
    reported: npt.NDArray[np.float32] | None = None,
) -> list[Hit]:
    """The first hits by their new scores, then the rest as they were.

    Args:
        hits: Best first by whatever found them.
        scores: `(n,)` float32, the new scores of the first `n` hits.
        k: Most hits to return; all if None.
        reported: `(n,)` float32, what the hits are given for score instead, where that tells fewer of them apart.

    Returns:
        The first `n`, best first, ties by chunk id, then the others in their order.
    """
    told = scores if reported is None else reported
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], hits[i].chunk.id))
    looked_at = [
        replace(hits[i], score=float(told[i]), scores=replace(hits[i].scores, rerank=float(told[i]))) for i in order
    ]
    return [*looked_at, *hits[len(scores) :]][:k]
