"""Chunks of a fixed size, wherever that cuts: the baseline that other strategies are measured by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m3rag.chunking.strategy import Cut, Material


@dataclass(frozen=True, slots=True)
class Fixed:
    """Each chunk as full as can be, the overlap as long as can be; between words, but within sentences."""

    @property
    def version(self) -> str:
        """See `Strategy`."""
        return "fixed"

    def cuts(self, material: Material) -> Iterator[Cut]:
        """See `Strategy`."""
        units, start, done = material.units, 0, 0
        while True:
            cut = min(max(units.reach(start, material.chunk_tokens), done + 1), len(units))
            yield Cut(start, cut)
            if cut == len(units):
                return
            room = min(material.overlap_tokens, material.chunk_tokens - units.tokens(cut, cut + 1))
            reached = units.tokens(0, cut)
            first = int(np.searchsorted(units.before, reached - room, "left")) if room > 0 else cut
            start, done = min(max(first, start + 1), cut), cut
