"""The packed output of many texts, filled in place while batches finish in any order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3rag.encoder.batching import Rows
from m3rag.encoder.engine import Encoded
from m3rag.encoder.lexical import LexicalRows
from m3rag.output import M3Output
from m3rag.types import ModelInfo


class OutputBuilder:
    """Collects batches into one `M3Output`.

    Args:
        n: Number of texts.
        info: The model's dimensions.
        colbert_dtype: Of the token vectors.
    """

    def __init__(self, n: int, info: ModelInfo, colbert_dtype: npt.DTypeLike) -> None:
        self._dense = np.empty((n, info.dense_dim), np.float32)
        self._colbert = np.empty((0, info.colbert_dim), colbert_dtype)
        self._lexical = LexicalRows(n, info.vocab_size)
        self._offsets = np.zeros(n + 1, np.int64)
        self._reserved = 0

    def reserve(self, counts: npt.NDArray[np.int64]) -> None:
        """Make room for the token vectors of the next texts, in order."""
        start, self._reserved = self._reserved, self._reserved + len(counts)
        self._offsets[start + 1 : self._reserved + 1] = self._offsets[start] + np.cumsum(counts)
        shape = (int(self._offsets[self._reserved]), self._colbert.shape[1])
        # Grown in place: joining parts at the end would need twice the memory.
        self._colbert.resize(shape, refcheck=False)

    def write(self, rows: Rows, encoded: Encoded) -> None:
        """Put a batch in its place; `rows` are numbers of reserved texts."""
        self._dense[rows] = encoded.dense
        self._lexical.add(rows, encoded.lexical)
        at = 0
        for start, end in zip(self._offsets[rows].tolist(), self._offsets[rows + 1].tolist(), strict=True):
            self._colbert[start:end] = encoded.colbert[at : at + end - start]
            at += end - start

    def output(self) -> M3Output:
        """What was collected."""
        return M3Output(self._dense, self._lexical.to_csr(), self._colbert, self._offsets)
