"""Fewer token vectors a passage: those that are alike become one, their mean.

Token pooling of Clavié, Chaffin and Adams 2024 (arXiv 2409.14683): Ward's hierarchical clustering
within each passage, down to 1 / `factor` of its token vectors. Only passages are pooled, never
questions.

A pooled vector stands for several tokens, so it has no span. What needs the token behind a vector
(`Extractive`, which takes a sentence's vectors from the store) cannot work on pooled passages, and
says so; `colbert_alignment` encodes both texts itself and is not touched. `token_clusters` tells which
tokens went into which vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from m3rag.errors import ConfigurationError
from m3rag.output import FloatArray, IntArray, M3Output

BLOCK_CLUSTERS = 256
"""Clusters made at a time. Ward's method needs memory and time by the square of the tokens, 270 MB and
seconds for the 8,192 of BGE-M3; distant tokens seldom belong together."""


def pool_tokens(output: M3Output, factor: int) -> M3Output:
    """An output with one token vector for every `factor` of each text's.

    Args:
        output: Of passages.
        factor: How many token vectors become one, in the mean; 1 changes nothing.

    Returns:
        Dense and lexical as they were. Of a text with `n` tokens `ceil(n / factor)` vectors of unit
        length are left, in the order of the first token in each, with the dtype they had.

    Raises:
        ConfigurationError: If the factor is below 1.
    """
    _check(factor)
    if factor == 1:
        return output
    pooled = [_pool(output.colbert_of(i), factor) for i in range(len(output))]
    counts = [len(vectors) for vectors in pooled]
    return M3Output(
        dense=output.dense,
        lexical=output.lexical,
        colbert=np.concatenate([output.colbert[:0], *pooled]),
        offsets=np.cumsum([0, *counts]).astype(np.int64),
    )


def token_clusters(tokens: FloatArray, factor: int) -> IntArray:
    """For each token the row of the pooled vector that it went into.

    Args:
        tokens: `(n, c)`, the token vectors of one text, rows of unit length.
        factor: As in `pool_tokens`.

    Returns:
        `(n,)` int64 with all of 0 to `ceil(n / factor) - 1`, numbered by the first token of each.

    Raises:
        ConfigurationError: If the factor is below 1.
    """
    _check(factor)
    # Blocks of whole multiples of the factor: their numbers of clusters add up to ceil(n / factor).
    size = BLOCK_CLUSTERS * factor
    labels = [
        _cluster(tokens[start : start + size].astype(np.float64), factor) + start // factor
        for start in range(0, len(tokens), size)
    ]
    return np.concatenate([np.zeros(0, np.int64), *labels])


def _check(factor: int) -> None:
    if factor < 1:
        raise ConfigurationError(f"the factor of token pooling must be at least 1, got {factor}")


def _cluster(tokens: npt.NDArray[np.float64], factor: int) -> IntArray:
    n = len(tokens)
    merges = n - -(-n // factor)
    if merges == 0:
        return np.arange(n, dtype=np.int64)
    # The tree's first merges, rather than a cut at a height: equal vectors merge at one height, and
    # the number of clusters would not be the one asked for.
    tree = linkage(pdist(tokens), method="ward")[:merges, :2].astype(np.int64)
    parents = np.repeat(n + np.arange(merges), 2)
    graph = coo_array((np.ones(2 * merges), (tree.ravel(), parents)), shape=(n + merges, n + merges))
    _, component = connected_components(graph, directed=False)
    _, first, labels = np.unique(component[:n], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: IntArray = rank[labels]
    return numbered


def _pool(tokens: FloatArray, factor: int) -> FloatArray:
    labels = token_clusters(tokens, factor)
    n = int(labels.max(initial=-1)) + 1
    sums = np.zeros((n, tokens.shape[1]), np.float64)
    np.add.at(sums, labels, tokens.astype(np.float64))
    lengths = np.linalg.norm(sums, axis=1)
    # Vectors that cancel out have no mean direction: the first of them stands for all.
    cancelled = lengths < 1e-6
    if cancelled.any():
        first = np.unique(labels, return_index=True)[1]
        sums[cancelled] = tokens[first[cancelled]]
        lengths[cancelled] = np.maximum(np.linalg.norm(sums[cancelled], axis=1), 1e-6)
    pooled: FloatArray = (sums / lengths[:, None]).astype(tokens.dtype)
    return pooled
