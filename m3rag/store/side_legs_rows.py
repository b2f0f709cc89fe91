"""The bytes in which a side store keeps the three representations of a chunk, and back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.store.codec import Codec, Codes
from m3rag.types import ModelInfo

# Little-endian whatever the machine, so that a file may be moved.
DENSE = np.dtype("<f4")
TOKEN = np.dtype("<i4")
WEIGHT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Packed:
    """One chunk's representations as bytes.

    Attributes:
        dense: `(d,)` float32.
        lexical: `(n,)` int32 token ids, then their `(n,)` float32 weights.
        colbert: The codes `(tokens, width)` uint8 of its token vectors.
    """

    dense: bytes
    lexical: bytes
    colbert: bytes


def pack(output: M3Output, codec: Codec) -> Iterator[Packed]:
    """The bytes of each text, in order."""
    dense = np.ascontiguousarray(output.dense, DENSE)
    colbert = codec.encode(output.colbert)
    indptr, indices, data = output.lexical.indptr, output.lexical.indices, output.lexical.data
    for i in range(len(output)):
        span = slice(indptr[i], indptr[i + 1])
        kept = data[span] > 0
        tokens, weights = indices[span][kept].astype(TOKEN), data[span][kept].astype(WEIGHT)
        yield Packed(
            dense[i].tobytes(),
            tokens.tobytes() + weights.tobytes(),
            colbert[output.offsets[i] : output.offsets[i + 1]].tobytes(),
        )


def unpack_dense(blobs: Sequence[bytes], model: ModelInfo) -> npt.NDArray[np.float32]:
    """The dense vectors `(n, d)` float32 of some chunks."""
    return np.frombuffer(b"".join(blobs), DENSE).reshape(len(blobs), model.dense_dim).astype(np.float32, copy=False)


def unpack_lexical(blobs: Sequence[bytes], model: ModelInfo) -> csr_array:
    """The lexical weights `(n, vocab)` float32 of some chunks."""
    halves = [len(blob) // 2 for blob in blobs]
    tokens = b"".join(blob[:half] for blob, half in zip(blobs, halves, strict=True))
    weights = b"".join(blob[half:] for blob, half in zip(blobs, halves, strict=True))
    indptr = np.cumsum([0, *halves]) // TOKEN.itemsize
    return csr_array(
        (
            np.frombuffer(weights, WEIGHT).astype(np.float32),
            np.frombuffer(tokens, TOKEN).astype(np.int32),
            indptr.astype(np.int32 if indptr[-1] < 2**31 else np.int64),
        ),
        shape=(len(blobs), model.vocab_size),
    )


def unpack_codes(blobs: Sequence[bytes], model: ModelInfo, codec: Codec) -> tuple[Codes, npt.NDArray[np.int64]]:
    """The codes of the token vectors of some chunks, one after the other, and the offset of each and of the end."""
    if not model.colbert_dim:
        return np.zeros((0, 0), np.uint8), np.zeros(len(blobs) + 1, np.int64)
    codes = codec.from_bytes(b"".join(blobs), dim=model.colbert_dim)
    lengths = [len(blob) // codes.shape[1] for blob in blobs]
    return codes, np.cumsum([0, *lengths]).astype(np.int64)


def unpack(rows: Sequence[Packed], model: ModelInfo, codec: Codec) -> M3Output:
    """The representations of some chunks, in order; token vectors are what their codes stand for."""
    codes, offsets = unpack_codes([row.colbert for row in rows], model, codec)
    colbert = codec.decode(codes, dim=model.colbert_dim) if len(codes) else np.zeros((0, model.colbert_dim), np.float16)
    return M3Output(
        dense=unpack_dense([row.dense for row in rows], model),
        lexical=unpack_lexical([row.lexical for row in rows], model),
        colbert=colbert,
        offsets=offsets,
    )


def checksum(*parts: bytes) -> int:
    """What is stored beside bytes, so that a flipped bit is found when they are read."""
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found
