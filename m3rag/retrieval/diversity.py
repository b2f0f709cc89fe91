"""Maximal marginal relevance: hits that are not all alike.

Of a pool of hits, best first, one after the other is chosen that has the largest

    (1 - diversity) * relevance - diversity * similarity

where relevance is the hit's score on the scale from 0 (the lowest of the pool) to 1 (its highest),
and similarity the largest cosine between the dense vectors, as stored, of the hit and of one that
was chosen before. Ties go to the hit that stands first. The best hit is always the first to be
chosen. (Carbonell and Goldstein, SIGIR 1998; `diversity` is 1 - lambda.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from m3rag.retrieval.fusion import minmax
from m3rag.retrieval.still_stored import still_stored
from m3rag.store.protocol import Store
from m3rag.types import Hit


def mmr(scores: npt.NDArray[np.float64], vectors: npt.NDArray[np.floating], *, k: int, diversity: float) -> list[int]:
    """Positions of the hits chosen, in the order of choice.

    Args:
        scores: `(n,)`, on any scale, best first.
        vectors: `(n, d)`, rows of unit length.
        k: Most positions to return.
        diversity: [0, 1].
    """
    relevance = minmax(scores, scores)
    similarity = np.full(len(scores), -np.inf)
    left = np.ones(len(scores), bool)
    chosen: list[int] = []
    while left.any() and len(chosen) < k:
        gain = (1 - diversity) * relevance - diversity * similarity if chosen else relevance
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        similarity = np.maximum(similarity, vectors @ vectors[best])
    return chosen


def diverse(store: Store, hits: Sequence[Hit], *, k: int, diversity: float) -> list[Hit]:
    """The `k` of the hits that maximal marginal relevance chooses; their scores stay as they are.

    Args:
        store: Holds their dense vectors.
        hits: The pool, best first.
        k: Most hits to return.
        diversity: [0, 1].
    """
    pool, output = still_stored(store, hits)
    if not pool:
        return []
    scores, vectors = np.array([hit.score for hit in pool]), output.dense.astype(np.float64)
    return [pool[i] for i in mmr(scores, vectors, k=k, diversity=diversity)]
