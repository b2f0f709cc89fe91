"""Token vectors in a SQLite file, a row a chunk: `legs (row, colbert, colbert_checksum)`, read and scored in groups."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from m3rag.output import IntArray, M3Output
from m3rag.store.codec import Codec, Codes
from m3rag.store.side_legs_rows import checksum
from m3rag.store.sqlite_file import SqliteFile, groups
from m3rag.types import ModelInfo

TOKENS_AT_ONCE = 4_096
"""Token vectors that are read before they are scored: with all of 100 chunks at once, the time depended threefold on
whether malloc had that much memory at hand."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The token vectors in a file as they are at one moment; all methods raise a StoreError if they are damaged.

    Attributes:
        connection: Sees the file of that moment.
        file: The file.
        model: The model whose token vectors they are.
        codec: How they are kept.
    """

    connection: sqlite3.Connection
    file: SqliteFile
    model: ModelInfo
    codec: Codec

    def codes(self, rows: Sequence[int]) -> Iterator[tuple[list[int], Codes, IntArray]]:
        """The codes of some chunks, each named once, in groups: their rows, codes and offsets.

        A group's codes are overwritten when the next is asked for.
        """
        dim = self.model.colbert_dim
        width = self.codec.width(dim)
        buffer, held, ends = memoryview(bytearray(TOKENS_AT_ONCE * width)), list[int](), [0]
        for row, blob in self._blobs(rows):
            end = ends[-1] + len(blob)
            if end > len(buffer):
                if held:
                    yield held, self.codec.from_bytes(buffer[: ends[-1]], dim=dim), np.array(ends) // width
                held, ends, end = [], [0], len(blob)
                if end > len(buffer):
                    buffer = memoryview(bytearray(end))
            buffer[ends[-1] : end] = blob
            held.append(row)
            ends.append(end)
        if held:
            yield held, self.codec.from_bytes(buffer[: ends[-1]], dim=dim), np.array(ends) // width

    def _blobs(self, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for group in groups(rows):
            lost = set(group)
            marks = ", ".join("?" * len(group))
            asked = f"SELECT row, colbert, colbert_checksum FROM legs WHERE row IN ({marks})"
            with closing(self.connection.execute(asked, group)) as found:
                for row, blob, expected in found:
                    check_codes(row, blob, expected, self.file)
                    lost.discard(row)
                    yield row, blob
            if lost:
                raise self.file.damaged(f"the token vectors of row {min(lost)} are not there")

    def scores(self, query: M3Output, rows: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The ColBERT scores `(n,)` of a query with the chunks of some rows, and where both have tokens."""
        scores, possible = np.zeros(len(rows)), np.zeros(len(rows), bool)
        if len(query.colbert):
            places, score = {row: place for place, row in enumerate(rows)}, self.codec.scorer(query.colbert)
            for found, codes, offsets in self.codes(rows):
                here = [places[row] for row in found]
                scores[here] = score(codes, offsets)
                possible[here] = np.diff(offsets) > 0
        return scores, possible

    def added_to(self, output: M3Output, rows: Sequence[int]) -> M3Output:
        """Representations with the token vectors of some rows, one a text, in order: what their codes stand for."""
        dim, decoded = self.model.colbert_dim, dict[int, npt.NDArray[np.float16]]()
        if not dim:
            return output
        for found, codes, offsets in self.codes(sorted(set(rows))):
            vectors = self.codec.decode(codes, dim=dim)
            decoded |= dict(zip(found, np.split(vectors, offsets[1:-1]), strict=True))
        tokens = [decoded[row] for row in rows]
        offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int64)
        return replace(output, colbert=np.concatenate([np.zeros((0, dim), np.float16), *tokens]), offsets=offsets)


def check_codes(row: int, blob: bytes, expected: int, file: SqliteFile) -> None:
    """Refuse token vectors that are not what was written; each row is looked at once while the file is open.

    Raises:
        StoreError: If the checksum does not hold.
    """
    if row not in file.checked:
        if checksum(blob) != expected:
            raise file.damaged(f"the token vectors of row {row} are not what was written")
        file.checked.add(row)
