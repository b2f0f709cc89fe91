"""How token vectors are kept: two bytes, one byte, half a byte or one bit a dimension.

A codec makes of each token vector a row of bytes that stands for itself: its length in float16 (but for
the codec float16) and its direction. Nothing is learned from other vectors, so chunks may come and go,
and two stores with the same codec hold the same bytes. Questions are never encoded: a score is that of
the float query against what the bytes stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numkong
import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError, InputError, StoreError
from m3rag.output import FloatArray, IntArray

Codes = npt.NDArray[np.uint8]
"""`(tokens, width)`, one row of bytes a token vector."""

Floats = npt.NDArray[np.float32]

BLOCK_VALUES = 4_000_000
"""Numbers unpacked at a time while scoring, 16 MB; a single passage may need more."""

FLOAT16_MAX = float(np.finfo(np.float16).max)
LENGTH = np.dtype("<f2")
FINE = 254  # parts of a step: half a step, the most that rounding leaves over, is 127 of them
TINY = 1e-9  # what a length of 0 is divided by

LEVELS = np.array([0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896], np.float32)
"""The upper half of the 16 values by which a normal variable is told with the least squared error
(Lloyd and Max's quantizer; a test computes them anew)."""


DEFAULT_CODEC = "int8"
"""Costs no real set more than .1 points of nDCG@10 in mode `all` (benchmarks/codecs.py). `int4` stays within .3 with
the rotation below; with another one it lost .4 on Chinese questions about English texts."""


class Codec(ABC):
    """Token vectors as bytes, and the ColBERT score of a float query against them.

    Codecs have no state: `CODECS` holds one of each kind.

    Example:
        >>> tokens = np.eye(2, 4, dtype=np.float32)
        >>> codes = CODECS["int8"].encode(tokens)
        >>> codes.shape, CODECS["int8"].decode(codes, dim=4).tolist()
        ((2, 6), [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    """

    __slots__ = ()

    name: ClassVar[str]
    """By which a collection's manifest names it."""

    bits: ClassVar[int]
    """Bits a dimension."""

    def width(self, dim: int) -> int:
        """Bytes a token vector of `dim` dimensions, its length among them."""
        return LENGTH.itemsize - (-dim * self.bits // 8)

    def encode(self, tokens: FloatArray) -> Codes:
        """The bytes of token vectors.

        Args:
            tokens: `(n, dim)` float16 or float32; rows of any length, 0 too.

        Returns:
            `(n, width(dim))` uint8.

        Raises:
            InputError: If a row has a NaN, an infinity or a length beyond float16.
        """
        vectors = _checked(tokens)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        directions = self._into_code_space(vectors / np.maximum(lengths, TINY))
        return np.concatenate([lengths.astype(LENGTH).view(np.uint8), self._pack(directions)], axis=1)

    def decode(self, codes: Codes, *, dim: int) -> npt.NDArray[np.float16]:
        """Token vectors whose inner products are the nearest to the encoded ones' that the bytes allow.

        Args:
            codes: `(n, width(dim))` uint8, as `encode` gave them.
            dim: Dimensions of a token vector.

        Returns:
            `(n, dim)` float16. Rows have the length they had, but those of `binary` are longer by
            `sqrt(pi / 2)`, so that their products with other vectors are right in the mean.
        """
        return self._out_of_code_space(self._vectors(codes, dim)).astype(np.float16)

    def from_bytes(self, blob: bytes | memoryview, *, dim: int) -> Codes:
        """The codes of one passage from `codes.tobytes()`.

        Raises:
            StoreError: If the bytes are no whole number of token vectors.
        """
        width = self.width(dim)
        if len(blob) % width:
            raise StoreError(
                f"{len(blob)} bytes of token vectors are not a multiple of {width} ({self.name}, {dim} dimensions): "
                "they are damaged; ingest the document again"
            )
        return np.frombuffer(blob, np.uint8).reshape(-1, width)

    def colbert_scores(self, query: FloatArray, codes: Codes, offsets: IntArray) -> Floats:
        """The ColBERT score of one query with each of several passages.

        Args:
            query: `(q, dim)`, the query's token vectors.
            codes: `(sum of tokens, width(dim))`, passages one after the other.
            offsets: `(n + 1,)`; passage `i` owns the rows `offsets[i]:offsets[i + 1]`.

        Returns:
            `(n,)` float32: the mean over query tokens of the best similarity in the passage; 0 where
            the query or the passage has no tokens.
        """
        return self.scorer(query)(codes, offsets)

    def scorer(self, query: FloatArray) -> Callable[[Codes, IntArray], Floats]:
        """`colbert_scores` for one query, for passages that come in several groups."""
        dim = query.shape[1]
        similarities = self._similarities(self._into_code_space(query.astype(np.float32))) if len(query) else None
        most = max(1, BLOCK_VALUES // dim)

        def scores(codes: Codes, offsets: IntArray) -> Floats:
            found = np.zeros(len(offsets) - 1, np.float32)
            filled = np.flatnonzero(np.diff(offsets))
            start = 0
            while similarities is not None and start < len(filled):
                # As many passages as fit, and one at least.
                limit = offsets[filled[start]] + most
                end = max(start + 1, int(np.searchsorted(offsets[filled + 1], limit, side="right")))
                block = filled[start:end]
                first = offsets[block[0]]
                products = similarities(codes[first : offsets[block[-1] + 1]])
                found[block] = np.maximum.reduceat(products, offsets[block] - first, axis=0).mean(axis=1)
                start = end
            return found

        return scores

    def _similarities(self, query: Floats) -> Callable[[Codes], Floats]:
        """What gives the similarities `(n, q)` of codes with a query `(q, dim)` in the codec's own space."""
        return lambda codes: self._vectors(codes, query.shape[1]) @ query.T

    def _vectors(self, codes: Codes, dim: int) -> Floats:
        """The rows `(n, dim)` in the codec's own space, where queries are brought to meet them."""
        lengths = np.ascontiguousarray(codes[:, : LENGTH.itemsize]).view(LENGTH).astype(np.float32)
        rows = self._unpack(np.ascontiguousarray(codes[:, LENGTH.itemsize :]), dim)
        rows *= lengths
        return rows

    @abstractmethod
    def _pack(self, directions: Floats) -> Codes:
        """The bytes of rows `(n, dim)` of unit length, or zero, in the codec's own space."""

    @abstractmethod
    def _unpack(self, codes: Codes, dim: int) -> Floats:
        """The rows `(n, dim)` again, a new array."""

    def _into_code_space(self, vectors: Floats) -> Floats:
        return vectors

    def _out_of_code_space(self, vectors: Floats) -> Floats:
        return vectors


class _RotatedCodec(Codec):
    """A codec that first turns all vectors by one fixed random rotation.

    A rotation changes no inner product, and makes the components of any vector alike: near normal,
    of one variance. So one table of values fits all dimensions of all models.
    """

    __slots__ = ()

    def _into_code_space(self, vectors: Floats) -> Floats:
        return vectors @ rotation(vectors.shape[1])

    def _out_of_code_space(self, vectors: Floats) -> Floats:
        return vectors @ rotation(vectors.shape[1]).T


class Float16Codec(Codec):
    """Two bytes a dimension: what an encoder gives, unchanged."""

    __slots__ = ()
    name = "float16"
    bits = 16

    def width(self, dim: int) -> int:
        """Bytes a token vector of `dim` dimensions."""
        return 2 * dim

    def encode(self, tokens: FloatArray) -> Codes:
        """As in `Codec.encode`; components of float16 stay as they are."""
        return np.ascontiguousarray(_checked(tokens), "<f2").view(np.uint8)

    def _vectors(self, codes: Codes, dim: int) -> Floats:
        return self._unpack(np.ascontiguousarray(codes), dim)

    def _pack(self, directions: Floats) -> Codes:
        return np.ascontiguousarray(directions, "<f2").view(np.uint8)

    def _unpack(self, codes: Codes, dim: int) -> Floats:
        return codes.view("<f2").reshape(len(codes), dim).astype(np.float32)


class Int8Codec(Codec):
    """One byte a dimension: whole numbers in proportion to the vector, 127 for its largest component."""

    __slots__ = ()
    name = "int8"
    bits = 8

    def _similarities(self, query: Floats) -> Callable[[Codes], Floats]:
        """Products of whole numbers, which are exact in any order: in half to an eighth of the time of unpacked codes.

        The query is told by two bytes a dimension, the second what the first leaves over, so to 1/65,000 of its largest
        component.
        """
        steps = np.maximum(np.abs(query).max(axis=1), TINY) / np.float32(127)
        levels = query / steps[:, None]
        coarse = np.rint(levels)
        fine = np.rint((levels - coarse) * FINE)
        packed = [numkong.dots_pack(np.ascontiguousarray(each, np.int8)) for each in (coarse, fine)]

        buffer = np.empty((0, len(query)), np.float32)  # memory new to the process takes longer than the products

        def similarities(codes: Codes) -> Floats:
            codes = np.ascontiguousarray(codes)
            rows = codes[:, LENGTH.itemsize :].view(np.int8)
            nonlocal buffer
            if len(rows) > len(buffer):
                buffer = np.empty((len(rows), len(query)), np.float32)
            found = buffer[: len(rows)]
            np.copyto(found, np.asarray(numkong.dots_packed(rows, packed[0])))
            found *= np.float32(FINE)
            found += np.asarray(numkong.dots_packed(rows, packed[1]))
            lengths = np.ascontiguousarray(codes[:, : LENGTH.itemsize]).view(LENGTH).astype(np.float32)
            norms = np.sqrt(np.asarray(numkong.dot(rows, rows), np.float32))
            found *= lengths / np.maximum(norms, 1)[:, None]
            found *= steps / np.float32(FINE)
            return found

        return similarities

    def _pack(self, directions: Floats) -> Codes:
        scale = 127 / np.abs(directions).max(axis=1, keepdims=True, initial=TINY)
        codes: Codes = np.rint(directions * scale).astype(np.int8).view(np.uint8)
        return codes

    def _unpack(self, codes: Codes, dim: int) -> Floats:
        return _unit(codes.view(np.int8).astype(np.float32))


class Int4Codec(_RotatedCodec):
    """Half a byte a dimension: the nearest of 16 values, after the rotation."""

    __slots__ = ()
    name = "int4"
    bits = 4

    def _pack(self, directions: Floats) -> Codes:
        n, dim = directions.shape
        levels = _levels()
        values = directions * np.float32(dim**0.5)  # components of variance 1
        nibbles = np.zeros((n, dim + dim % 2), np.uint8)
        nibbles[:, :dim] = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
        packed: Codes = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
        return packed

    def _unpack(self, codes: Codes, dim: int) -> Floats:
        rows = _byte_levels()[codes].reshape(len(codes), 2 * codes.shape[1])  # (n, dim, or one more)
        return _unit(rows[:, :dim])


class BinaryCodec(_RotatedCodec):
    """One bit a dimension: the sign, after the rotation."""

    __slots__ = ()
    name = "binary"
    bits = 1

    def _pack(self, directions: Floats) -> Codes:
        return np.packbits(directions > 0, axis=1)

    def _unpack(self, codes: Codes, dim: int) -> Floats:
        signs = np.unpackbits(codes, axis=1, count=dim).astype(np.float32)
        # The mean of |x| of a unit vector is sqrt(2 / (pi dim)): by its inverse products come out right.
        step = np.float32((np.pi / 2 / dim) ** 0.5)
        signs *= 2 * step
        signs -= step
        return signs


CODECS: Mapping[str, Codec] = MappingProxyType(
    {codec.name: codec for codec in (Float16Codec(), Int8Codec(), Int4Codec(), BinaryCodec())}
)
"""All codecs by name, the largest first."""


def codec_named(name: str) -> Codec:
    """The codec of a name.

    Raises:
        ConfigurationError: If there is none.
    """
    if name not in CODECS:
        raise ConfigurationError(f"unknown codec {name!r} for token vectors: choose one of {', '.join(CODECS)}")
    return CODECS[name]


@lru_cache(maxsize=8)
def rotation(dim: int) -> Floats:
    """A fixed random rotation of `dim` dimensions: `(dim, dim)` float32, the same in every process."""
    # RandomState's stream is frozen for good, and QR is unique once the diagonal of R is positive.
    q, r = np.linalg.qr(np.random.RandomState(20240203).standard_normal((dim, dim)))
    turn: Floats = (q * np.sign(np.diagonal(r))).astype(np.float32)
    turn.setflags(write=False)
    return turn


@lru_cache(maxsize=1)
def _levels() -> Floats:
    return np.concatenate([-LEVELS[::-1], LEVELS])


@lru_cache(maxsize=1)
def _byte_levels() -> Floats:
    """For each byte the values of its low and its high half: `(256, 2)`."""
    both = np.arange(256)
    return np.stack([_levels()[both & 15], _levels()[both >> 4]], axis=1)


def _checked(tokens: FloatArray) -> Floats:
    if tokens.ndim != 2:
        raise InputError(f"token vectors must be a matrix (tokens, dimensions), got the shape {tokens.shape}")
    vectors: Floats = tokens.astype(np.float32)
    lengths = np.linalg.norm(tokens.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(lengths <= FLOAT16_MAX))
    if len(wrong):
        raise InputError(
            f"token vector {wrong[0]} holds a NaN or an infinity, or is longer than {FLOAT16_MAX:,.0f}: "
            "the model that gave it is damaged"
        )
    return vectors


def _unit(vectors: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    units: Floats = vectors / np.maximum(lengths, TINY)[:, None]
    return units
