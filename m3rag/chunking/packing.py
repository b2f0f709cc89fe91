"""Units packed into chunks: full, but ending where the text pauses, with tables, lists and code kept whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m3rag.chunking.units import HEADING, SENTENCE, Units


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs units into chunks.

    Attributes:
        units: What is packed.
        chunk_tokens: The most tokens of a chunk.
        overlap_tokens: The most tokens at a chunk's start that also end the chunk before it.
    """

    units: Units
    chunk_tokens: int
    overlap_tokens: int

    def windows(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Half-open ranges of units, one a chunk, that together cover `[first, last)`."""
        start, done = first, first
        while True:
            cut = self._cut(start, done, last)
            yield start, cut
            if cut == last:
                return
            start, done = self._overlap(start, cut), cut

    def _cut(self, start: int, done: int, last: int) -> int:
        """Where the window from `start` ends: at the strongest pause of its last third, and past `done`."""
        units = self.units
        left = units.tokens(start, last)
        if left <= self.chunk_tokens:
            return last
        # Two chunks of about one size instead of a full one and a scrap.
        room = self.chunk_tokens if 4 * left >= 5 * self.chunk_tokens else -(-5 * left // 8)
        end = min(max(units.reach(start, room), done + 1), last)
        soft = max(units.reach(start, room - room // 3), done + 1)
        if soft < end:
            strengths = units.strength[soft : end + 1]
            end -= int(np.argmax(strengths[::-1]))
        return self._around_block(start, done, last, end)

    def _around_block(self, start: int, done: int, last: int, cut: int) -> int:
        """The cut, moved behind or before a table, list or code that it would part and that fits a chunk."""
        block = self.units.block_across(cut)
        if block is None or self.units.tokens(*block) > self.chunk_tokens:
            return cut
        first, end = block
        if end <= last and self.units.tokens(start, end) <= self.chunk_tokens:
            return end
        return first if first > max(start, done) else cut

    def _overlap(self, start: int, cut: int) -> int:
        """Where the chunk after `cut` starts: at a sentence, else at a unit, in the section of the cut."""
        units = self.units
        reached = units.tokens(0, cut)
        # The next chunk must hold the overlap and at least one unit more, a whole table if one follows.
        ahead = units.tokens(cut, cut + 1)
        block = units.block_at(cut)
        if block is not None and units.tokens(*block) <= self.chunk_tokens:
            ahead = units.tokens(*block)
        room = min(self.overlap_tokens, self.chunk_tokens - ahead)
        first = max(int(np.searchsorted(units.before, reached - room, "left")), start + 1)
        if room <= 0 or first >= cut or units.strength[cut] == HEADING:
            return cut
        strengths = units.strength[first:cut]
        headings = np.flatnonzero(strengths == HEADING)
        if len(headings):
            first += int(headings[-1])
        sentences = np.flatnonzero(units.strength[first:cut] >= SENTENCE)
        return first + int(sentences[0]) if len(sentences) else first
