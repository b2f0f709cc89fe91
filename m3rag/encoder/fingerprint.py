"""A hash that changes whenever the numbers of a model would."""

from __future__ import annotations

import hashlib
import json
import operator
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO

from m3rag.errors import ModelError

PART = 1 << 16
"""A tensor of at most so many bytes is hashed whole."""

PARTS = 64
"""Of a file in which no tensors are told apart, 64 parts of 64 KB are hashed: up to 4 MB all of it."""

BLOCK = 1 << 12
LEAST_BLOCKS, MOST_BLOCKS = 16, 256
"""What is hashed of a larger tensor: blocks from its first to its last byte, one a megabyte within these bounds. So the
rows of each of 16 attention heads are seen, and of the 2.3 GB of BGE-M3 12 MB are read."""

HEADER_BYTES = 100_000_000
"""Of safetensors, which reads no longer header."""

Contents = tuple[bytes, set[int]]
"""What a file says of its tensors, and the bytes at which they begin and end."""


def fingerprint(options: Mapping[str, object], *, folder: Path | None = None, files: Iterable[Path] = ()) -> str:
    """The fingerprint of a model.

    Of safetensors files and PyTorch's archives something of every tensor is hashed, since a training may move a few
    tensors alone; of other large files 64 parts. Hashing gigabytes whole at every start would cost seconds.

    Args:
        options: JSON values on which the numbers depend.
        folder: Where the files are; how they are named there counts too, where the folder is does not.
        files: Files of the model, in an order that is always the same; a damaged one has a fingerprint too.

    Raises:
        ModelError: If a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for path in files:
        try:
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder or '').as_posix()} {size}\n".encode())
            with path.open("rb") as file:
                for block in _blocks(file, size):
                    digest.update(block)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:16]


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    contents = _of_safetensors(file, size) or _of_archive(file) if size > PARTS * PART else None
    told, edges = contents or (b"", set())
    if edges and min(edges) >= 0 and max(edges) <= size:
        yield told
        places = [place for start, end in pairwise(sorted({*edges, size})) for place in _places(start, end)]
    else:  # damage is told of where the weights are loaded
        places = [(start, PART) for start in range(0, size, max(size // PARTS, PART))]
    for start, length in places:
        file.seek(start)
        yield file.read(length)


def _places(start: int, end: int) -> list[tuple[int, int]]:
    """Where a tensor is read, and how many bytes there."""
    if end - start <= PART:
        return [(start, end - start)]
    count = min(max((end - start) >> 20, LEAST_BLOCKS), MOST_BLOCKS)
    return [(start + (end - start - BLOCK) * i // (count - 1), BLOCK) for i in range(count)]


def _of_safetensors(file: IO[bytes], size: int) -> Contents | None:
    length = int.from_bytes(file.read(8), "little")
    if length > min(size, HEADER_BYTES):
        return None
    header = file.read(length)
    try:
        tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
        return header, {8 + length + operator.index(edge) for tensor in tensors for edge in tensor["data_offsets"]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _of_archive(file: IO[bytes]) -> Contents | None:
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # as are files of torch before 1.6
    told = [(record.filename, record.CRC, record.file_size) for record in records]
    return json.dumps(told).encode(), {record.header_offset for record in records}
