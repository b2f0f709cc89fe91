"""What a strategy of chunking is given, and what it must give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from m3rag.chunking.packing import Packer
from m3rag.chunking.sections import Section
from m3rag.chunking.units import Units

if TYPE_CHECKING:
    from m3rag.encoder.protocol import Encoder


class Cut(NamedTuple):
    """A chunk: the units `[first, last)`, and those of its parent if an answer is made from more than it."""

    first: int
    last: int
    parent: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What is cut.

    Attributes:
        text: The document's.
        units: What is never cut, with the pauses between; at least one.
        sections: Of the document; together they hold all units.
        chunk_tokens: The most tokens of a chunk.
        overlap_tokens: The most tokens two chunks may share.
        encoder: The model, None where only its tokenizer was given.
    """

    text: str
    units: Units
    sections: Sequence[Section]
    chunk_tokens: int
    overlap_tokens: int
    encoder: Encoder | None = None

    def packer(self, *, chunk_tokens: int | None = None, overlap_tokens: int | None = None) -> Packer:
        """Packs units into chunks of the size asked for, or a smaller one."""
        return Packer(
            self.units,
            self.chunk_tokens if chunk_tokens is None else chunk_tokens,
            self.overlap_tokens if overlap_tokens is None else overlap_tokens,
        )


class Strategy(Protocol):
    """Decides where a document is cut."""

    @property
    def version(self) -> str:
        """Its name and all its options: whatever would give other cuts gives another version."""

    def cuts(self, material: Material) -> Iterable[Cut]:
        """The chunks in order, each of at most `material.chunk_tokens` unless a single unit is longer.

        Starts and ends grow from chunk to chunk, and every unit is in one.
        """
