"""M3Output: the three representations of a batch of texts, packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class M3Output:
    """Dense, lexical and ColBERT representations of `n` texts.

    Attributes:
        dense: `(n, d)` float32, rows of unit length.
        lexical: `(n, vocab)` CSR, float32, weights > 0 by token id.
        colbert: `(sum of tokens, c)` float16 or float32, rows of unit length, texts one after
            the other.
        offsets: `(n + 1,)` int64; text `i` owns the rows `offsets[i]:offsets[i + 1]` of `colbert`.

    An output is a sequence: `len`, `output[i]` (an output of one text), `output[2:5]`,
    `output[[4, 0]]` and iteration all give outputs, so that any part can be scored or stored.
    """

    dense: npt.NDArray[np.float32]
    lexical: csr_array
    colbert: FloatArray
    offsets: IntArray

    def __post_init__(self) -> None:
        n = len(self.offsets) - 1
        if not (len(self.dense) == n == self.lexical.shape[0] and self.offsets[-1] == len(self.colbert)):
            raise ValueError(
                f"the parts of an M3Output disagree: dense {self.dense.shape}, lexical {self.lexical.shape}, "
                f"colbert {self.colbert.shape}, offsets for {n} texts ending at {self.offsets[-1]}"
            )

    @classmethod
    def empty(cls, *, dense_dim: int, vocab_size: int, colbert_dim: int) -> M3Output:
        """The output of no texts, with the dimensions of a model."""
        return cls(
            dense=np.zeros((0, dense_dim), np.float32),
            lexical=csr_array(np.zeros((0, vocab_size), np.float32)),
            colbert=np.zeros((0, colbert_dim), np.float16),
            offsets=np.zeros(1, np.int64),
        )

    @classmethod
    def from_dense(cls, dense: npt.NDArray[np.float32]) -> M3Output:
        """The output of a model that gives dense vectors `(n, d)` alone: no vocabulary, no token vectors."""
        n = len(dense)
        return cls(
            dense=dense,
            lexical=csr_array(np.zeros((n, 0), np.float32)),
            colbert=np.zeros((0, 0), np.float16),
            offsets=np.zeros(n + 1, np.int64),
        )

    @classmethod
    def concatenate(cls, outputs: Sequence[M3Output]) -> M3Output:
        """Join outputs of the same model in order.

        Raises:
            ValueError: If there is nothing to join.
        """
        if not outputs:
            raise ValueError("nothing to concatenate: M3Output.empty() makes an output of no texts")
        if len(outputs) == 1:
            return outputs[0]
        counts = np.concatenate([np.diff(o.offsets) for o in outputs])
        return cls(
            dense=np.concatenate([o.dense for o in outputs]),
            lexical=csr_array(vstack([o.lexical for o in outputs], format="csr")),
            colbert=np.concatenate([o.colbert for o in outputs]),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[M3Output]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[np.integer]) -> M3Output:
        rows = np.arange(len(self))[list(index) if isinstance(index, tuple) else index]
        rows = np.atleast_1d(rows)
        counts = np.diff(self.offsets)[rows]
        parts = [self.colbert[self.offsets[r] : self.offsets[r + 1]] for r in rows]
        return M3Output(
            dense=self.dense[rows],
            lexical=csr_array(self.lexical[rows]),
            colbert=parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else self.colbert[:0],
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def colbert_of(self, i: int) -> FloatArray:
        """The token vectors `(tokens, c)` of text `i`, from the end where that is negative: a view."""
        i = range(len(self))[i]
        return self.colbert[self.offsets[i] : self.offsets[i + 1]]

    def lexical_dicts(self) -> list[dict[str, float]]:
        """Lexical weights as FlagEmbedding gives them: one `{str(token_id): weight}` a text."""
        indptr, indices, data = self.lexical.indptr, self.lexical.indices, self.lexical.data
        return [
            {str(token): weight for token, weight in zip(indices[a:b].tolist(), data[a:b].tolist(), strict=True)}
            for a, b in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)
        ]
