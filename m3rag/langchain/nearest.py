"""Search by a dense vector that was made elsewhere, and maximal marginal relevance as LangChain defines it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.errors import InputError
from m3rag.langchain.model import whole
from m3rag.output import M3Output
from m3rag.retrieval.still_stored import representations_left
from m3rag.store.protocol import Filter, Store
from m3rag.types import Chunk, ModelInfo

Found = tuple[Chunk, float]
"""A chunk, and the cosine of its dense vector with the question's."""


def nearest(store: Store, vector: Sequence[float], *, k: int, filter: Filter | None) -> list[Found]:
    """The best `k` chunks for a dense vector, best first, ties by id.

    Args:
        store: Where to look.
        vector: `(d,)`, of any length.
        k: >= 1.
        filter: Conditions on the chunks' metadata.

    Raises:
        InputError: If the vector is not of the model's dimension, or not finite, or `k` is no whole number from 1.
    """
    query = _query(vector, store.manifest.model)
    scores = dict(store.candidates(query, "dense", k=whole("k", k), filter=filter))
    return [(chunk, scores[chunk.id]) for chunk in store.get(list(scores))]


def diverse(store: Store, found: Sequence[Found], *, k: int, lambda_mult: float) -> list[Chunk]:
    """The `k` chunks that maximal marginal relevance chooses, in the order of choice.

    One after the other is chosen that has the largest `lambda_mult * relevance - (1 - lambda_mult) * similarity`:
    its cosine with the question, and the largest with one that was chosen before. Ties go to the one that
    stands first. (Carbonell and Goldstein, SIGIR 1998; as `langchain_core.vectorstores.utils`.)

    Args:
        store: Holds their dense vectors.
        found: With their cosines, best first.
        k: Most chunks to return.
        lambda_mult: From 0, as diverse as can be, to 1, by relevance alone.

    Raises:
        InputError: If `k` or `lambda_mult` is no number, or out of range.
    """
    if whole("k", k) < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if not isinstance(lambda_mult, Real) or not 0 <= lambda_mult <= 1:
        raise InputError(
            f"lambda_mult goes from 0 (as diverse as can be) to 1 (by relevance alone), got {lambda_mult!r}"
        )
    pool = {chunk.id: (chunk, score) for chunk, score in found}
    ids, output = representations_left(store, list(pool))
    vectors = output.dense.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    relevance = np.array([pool[id_][1] for id_ in ids])
    return [pool[ids[i]][0] for i in _chosen(relevance, vectors, k=k, lambda_mult=lambda_mult)]


def _chosen(
    relevance: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], *, k: int, lambda_mult: float
) -> list[int]:
    gain = relevance
    similarity = np.full(len(relevance), -np.inf)
    left = np.ones(len(relevance), bool)
    chosen: list[int] = []
    while left.any() and len(chosen) < k:
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        similarity = np.maximum(similarity, vectors @ vectors[best])
        gain = lambda_mult * relevance - (1 - lambda_mult) * similarity
    return chosen


def _query(vector: Sequence[float], model: ModelInfo) -> M3Output:
    try:
        dense = np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        dense = np.zeros(0, np.float32)
    if dense.shape != (model.dense_dim,) or not np.isfinite(dense).all():
        raise InputError(
            f"the embedding must be {model.dense_dim} finite numbers, as the model {model.name} gives them, "
            f"got an array of shape {dense.shape}: embed the question with the store's own embeddings"
        )
    dense = dense / max(float(np.linalg.norm(dense)), float(np.finfo(np.float32).tiny))
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(2, np.int32)
    return M3Output(
        dense=dense[np.newaxis].astype(np.float32),
        lexical=csr_array(nothing, shape=(1, model.vocab_size)),
        colbert=np.zeros((0, model.colbert_dim), np.float16),
        offsets=np.zeros(2, np.int64),
    )
