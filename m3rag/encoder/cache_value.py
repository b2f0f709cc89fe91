"""One text's three representations as bytes and back, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.output import M3Output

# Length of the dense vector, lexical entries, rows and columns of ColBERT, its dtype; then the four
# arrays in little-endian order. Its 20 bytes leave every array aligned.
HEADER = struct.Struct("<4I4s")


def to_values(output: M3Output) -> list[bytes]:
    """Each text of an output as bytes, in order."""
    dense = np.ascontiguousarray(output.dense, "<f4")
    tokens = np.ascontiguousarray(output.lexical.indices, "<i4")
    weights = np.ascontiguousarray(output.lexical.data, "<f4")
    colbert = np.ascontiguousarray(output.colbert, output.colbert.dtype.newbyteorder("<"))
    starts, offsets = output.lexical.indptr.tolist(), output.offsets.tolist()
    dtype = colbert.dtype.str.encode()
    values = []
    for i in range(len(output)):
        entries, rows = slice(starts[i], starts[i + 1]), slice(offsets[i], offsets[i + 1])
        header = HEADER.pack(
            dense.shape[1], entries.stop - entries.start, rows.stop - rows.start, colbert.shape[1], dtype
        )
        arrays = (dense[i], tokens[entries], weights[entries], colbert[rows])
        values.append(b"".join([header, *(a.tobytes() for a in arrays)]))
    return values


def from_values(values: Sequence[bytes], *, vocab_size: int) -> M3Output:
    """The output of the texts whose values these are, in order.

    Args:
        values: At least one value, all from the same encoder.
        vocab_size: Width of the lexical matrix.
    """
    parts = [_arrays(value) for value in values]
    tokens = [tokens for _, tokens, _, _ in parts]
    lexical = csr_array(
        (
            np.concatenate([weights for _, _, weights, _ in parts]),
            np.concatenate(tokens),
            _offsets([len(t) for t in tokens]),
        ),
        shape=(len(values), vocab_size),
    )
    return M3Output(
        dense=np.stack([dense for dense, _, _, _ in parts]),
        lexical=lexical,
        colbert=np.concatenate([colbert for _, _, _, colbert in parts]),
        offsets=_offsets([len(colbert) for _, _, _, colbert in parts]),
    )


def dense_of(value: bytes) -> npt.NDArray[np.float32]:
    """The dense vector `(d,)` of a value, a view that cannot be written to."""
    return np.frombuffer(value, "<f4", HEADER.unpack_from(value)[0], HEADER.size)


def _arrays(
    value: bytes,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.floating]]:
    dim, entries, rows, columns, dtype = HEADER.unpack_from(value)
    at = HEADER.size + 4 * dim
    tokens = np.frombuffer(value, "<i4", entries, at)
    weights = np.frombuffer(value, "<f4", entries, at + 4 * entries)
    colbert = np.frombuffer(value, np.dtype(dtype.rstrip(b"\0").decode()), rows * columns, at + 8 * entries)
    return dense_of(value), tokens, weights, colbert.reshape(rows, columns)


def _offsets(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
