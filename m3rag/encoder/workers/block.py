"""A piece of memory shared with a worker: texts on their way in, representations on their way out."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from m3rag.encoder.batching import Batch, Rows
from m3rag.encoder.engine import Encoded
from m3rag.encoder.lexical import TokenWeights
from m3rag.errors import ModelError
from m3rag.output import FloatArray

ALIGNMENT = 64
"""Each array begins at a multiple of so many bytes, a cache line."""

MEMORY = Path("/dev/shm")
"""Where Linux keeps shared memory as files."""


class Arrays(NamedTuple):
    """What lies in a block: a `Batch`, then the parts of its `Encoded` in the order in which they were computed.

    `order` `(texts,)` says which text each row of `dense` belongs to. `lexical_*` are `TokenWeights`,
    of which there are at most as many as kept tokens.
    """

    ids: npt.NDArray[np.int64]
    lengths: Rows
    keep: npt.NDArray[np.bool_]
    pool: npt.NDArray[np.float32]
    order: Rows
    dense: npt.NDArray[np.float32]
    colbert: FloatArray
    lexical_rows: npt.NDArray[np.int64]
    lexical_tokens: npt.NDArray[np.int32]
    lexical_weights: npt.NDArray[np.float32]


class Layout(NamedTuple):
    """The sizes of one shard's arrays: its texts, tokens and kept tokens; the model's dimensions."""

    texts: int
    tokens: int
    kept: int
    dense_dim: int
    colbert_dim: int
    colbert_dtype: str

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(_aligned(_nbytes(shape, dtype)) for shape, dtype in self.fields())

    def fields(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of each of `Arrays`."""
        texts, tokens, kept = (self.texts,), (self.tokens,), (self.kept,)
        return [
            (tokens, "int64"),
            (texts, "int64"),
            (tokens, "bool"),
            (tokens, "float32"),
            (texts, "int64"),
            ((self.texts, self.dense_dim), "float32"),
            ((self.kept, self.colbert_dim), self.colbert_dtype),
            (kept, "int64"),
            (kept, "int32"),
            (kept, "float32"),
        ]


class Block:
    """Shared memory for one shard at a time.

    Arrays in it are handed to no one: whatever still held one would keep the memory from being closed.
    """

    def __init__(self, memory: SharedMemory, *, owned: bool) -> None:
        self._memory = memory
        self._linked = owned

    @classmethod
    def create(cls, nbytes: int) -> Block:
        """Make a block, which has a name until `unlink`.

        Raises:
            ModelError: If the machine has not so much shared memory.
        """
        block = cls(SharedMemory(f"m3rag-{os.getpid()}-{secrets.token_hex(4)}", create=True, size=nbytes), owned=True)
        try:
            block._reserve(nbytes)
        except OSError as error:
            block.unlink()
            block.close()
            raise ModelError(
                f"there is no room for {nbytes:,} bytes of shared memory in {MEMORY} ({error.strerror}): lower "
                "batch_tokens, use fewer devices, or give a container more of it (docker run --shm-size=2g)"
            ) from error
        return block

    @classmethod
    def attach(cls, name: str) -> Block:
        """Open a block that another process made."""
        return cls(SharedMemory(name), owned=False)

    @property
    def name(self) -> str:
        """How another process finds it."""
        return self._memory.name

    def put_texts(self, layout: Layout, texts: Batch) -> None:
        """Write a shard's texts."""
        arrays = self._arrays(layout)
        arrays.ids[:], arrays.lengths[:], arrays.keep[:], arrays.pool[:] = (
            texts.ids,
            texts.lengths,
            texts.keep,
            texts.pool,
        )

    def texts(self, layout: Layout) -> Batch:
        """A copy of a shard's texts."""
        arrays = self._arrays(layout)
        return Batch(arrays.ids.copy(), arrays.lengths.copy(), arrays.keep.copy(), arrays.pool.copy())

    def put_weights(self, layout: Layout, weights: npt.NDArray[np.float32]) -> None:
        """Write a lexical weight for each kept token."""
        self._arrays(layout).lexical_weights[:] = weights

    def weights(self, layout: Layout) -> npt.NDArray[np.float32]:
        """A copy of the weight of each kept token."""
        return self._arrays(layout).lexical_weights.copy()

    def put_encoded(self, layout: Layout, done: Written, rows: Rows, encoded: Encoded) -> Written:
        """Write a batch of the shard behind those that are done.

        Args:
            layout: The shard's.
            done: How much was written before.
            rows: The batch's texts, numbers in the shard.
            encoded: Their representations.

        Returns:
            How much is written now.
        """
        arrays = self._arrays(layout)
        lexical = encoded.lexical
        after = Written(done.texts + len(rows), done.kept + len(encoded.colbert), done.entries + len(lexical.weights))
        arrays.order[done.texts : after.texts] = rows
        arrays.dense[done.texts : after.texts] = encoded.dense
        arrays.colbert[done.kept : after.kept] = encoded.colbert
        arrays.lexical_rows[done.entries : after.entries] = lexical.rows + done.texts
        arrays.lexical_tokens[done.entries : after.entries] = lexical.tokens
        arrays.lexical_weights[done.entries : after.entries] = lexical.weights
        return after

    def encoded(self, layout: Layout, done: Written) -> tuple[Rows, Encoded]:
        """A copy of what was written: numbers in the shard, and their representations."""
        arrays = self._arrays(layout)
        lexical = TokenWeights(
            arrays.lexical_rows[: done.entries].copy(),
            arrays.lexical_tokens[: done.entries].copy(),
            arrays.lexical_weights[: done.entries].copy(),
        )
        return arrays.order.copy(), Encoded(arrays.dense.copy(), lexical, arrays.colbert.copy())

    def unlink(self) -> None:
        """Take its name away: the memory is then freed with the last process that has it open, however that ends."""
        if self._linked:
            self._linked = False
            self._memory.unlink()

    def close(self) -> None:
        """Let go of it in this process."""
        self._memory.close()

    def _arrays(self, layout: Layout) -> Arrays:
        arrays: list[npt.NDArray[Any]] = []
        at = 0
        for shape, dtype in layout.fields():
            arrays.append(np.ndarray(shape, dtype, self._memory.buf, at))
            at += _aligned(_nbytes(shape, dtype))
        return Arrays(*arrays)

    def _reserve(self, nbytes: int) -> None:
        # Without it a full /dev/shm (64 MB in a container) is found out by a SIGBUS while writing.
        with suppress(FileNotFoundError):  # only Linux has these files
            file = os.open(MEMORY / self.name, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, nbytes)
            finally:
                os.close(file)


class Written(NamedTuple):
    """How much of a shard's results is written: texts, kept tokens, lexical entries."""

    texts: int = 0
    kept: int = 0
    entries: int = 0


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
