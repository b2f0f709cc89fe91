"""The default strategy: sections, then paragraphs, then sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from m3rag.chunking.strategy import Cut, Material

SMALL_SECTION = 64
"""Tokens below which a section shares its chunk with what follows."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Full chunks that end at a paragraph, else a sentence, else a line, and never span a larger section's end."""

    @property
    def version(self) -> str:
        """See `Strategy`."""
        return "structure"

    def cuts(self, material: Material) -> Iterator[Cut]:
        """See `Strategy`."""
        packer = material.packer()
        for first, last in section_groups(material):
            for window in packer.windows(first, last):
                yield Cut(*window)


def section_groups(material: Material) -> Iterator[tuple[int, int]]:
    """Half-open ranges of units: a section each, or a small one with those that follow on its level or below."""
    sections, units = material.sections, material.units
    small = min(SMALL_SECTION, material.chunk_tokens // 4)
    at = 0
    while at < len(sections):
        group = at + 1
        while (
            group < len(sections)
            and sections[group].level >= sections[at].level
            and units.tokens(sections[at].first, sections[group].first) < small
        ):
            group += 1
        yield sections[at].first, sections[group - 1].last
        at = group
