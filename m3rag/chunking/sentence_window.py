"""Single sentences to search, the sentences around them to answer from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m3rag.chunking.strategy import Cut, Material
from m3rag.chunking.structure import section_groups
from m3rag.chunking.units import SENTENCE, Units
from m3rag.errors import ConfigurationError

SHORTEST = 8
"""Tokens below which a sentence says too little to be found, and joins the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceWindow:
    """A chunk a sentence; its parent are the sentences around it, as far as they fit `chunk_tokens`.

    There is no overlap: what stands around a chunk is in its parent. A sentence of less than 8 tokens
    joins the next of its section, one of more than `chunk_tokens` is cut.

    Attributes:
        sentences: Most chunks on each side in the parent; 1 or more.

    Raises:
        ConfigurationError: If it is less.
    """

    sentences: int = 3

    def __post_init__(self) -> None:
        if self.sentences < 1:
            raise ConfigurationError(f"sentence-window: sentences is {self.sentences}; it must be 1 or more, such as 3")

    @property
    def version(self) -> str:
        """See `Strategy`."""
        return f"sentence-window:sentences={self.sentences}"

    def cuts(self, material: Material) -> Iterator[Cut]:
        """See `Strategy`."""
        packer = material.packer(overlap_tokens=0)
        for first, last in section_groups(material):
            chunks = [
                window
                for sentence in sentences_of(
                    material.units, first, last, shortest=min(SHORTEST, material.chunk_tokens // 2)
                )
                for window in packer.windows(*sentence)
            ]
            for at, chunk in enumerate(chunks):
                yield Cut(*chunk, self._window(material, chunks, at))

    def _window(self, material: Material, chunks: list[tuple[int, int]], at: int) -> tuple[int, int]:
        """The chunk with as many of its neighbours as fit, the nearest first, those before it first."""
        first, last = chunks[at]
        for distance in range(1, self.sentences + 1):
            for neighbour in (at - distance, at + distance):
                if not 0 <= neighbour < len(chunks):
                    continue
                wider = min(first, chunks[neighbour][0]), max(last, chunks[neighbour][1])
                if material.units.tokens(*wider) > material.chunk_tokens:
                    return first, last
                first, last = wider
        return first, last


def sentences_of(units: Units, first: int, last: int, *, shortest: int = 0) -> list[tuple[int, int]]:
    """The sentences among the units `[first, last)`, as half-open ranges that cover them.

    Args:
        units: Of the text.
        first: The first unit.
        last: One past the last.
        shortest: Tokens below which a sentence joins the next, and the last of all the one before it.
    """
    starts = [first, *(first + 1 + np.flatnonzero(units.strength[first + 1 : last] >= SENTENCE)).tolist()]
    found: list[tuple[int, int]] = []
    begun = first
    for end in [*starts[1:], last]:
        if units.tokens(begun, end) >= shortest or (end == last and not found):
            found.append((begun, end))
            begun = end
    if begun < last:
        found[-1] = (found[-1][0], last)
    return found
