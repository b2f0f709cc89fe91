"""Small chunks to search, the larger passage around them to answer from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from m3rag.chunking.strategy import Cut, Material
from m3rag.chunking.structure import section_groups
from m3rag.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallToBig:
    """Passages of `chunk_tokens`, cut as `Structure` does, each taken apart into chunks of `chunk_tokens / parts`.

    There is no overlap: what stands around a chunk is in its parent.

    Attributes:
        parts: How many chunks a full passage has at least; 2 or more.

    Raises:
        ConfigurationError: If it is less.
    """

    parts: int = 4

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise ConfigurationError(f"small-to-big: parts is {self.parts}; it must be 2 or more, such as 4")

    @property
    def version(self) -> str:
        """See `Strategy`."""
        return f"small-to-big:parts={self.parts}"

    def cuts(self, material: Material) -> Iterator[Cut]:
        """See `Strategy`."""
        big = material.packer(overlap_tokens=0)
        small = material.packer(chunk_tokens=max(material.chunk_tokens // self.parts, 1), overlap_tokens=0)
        for first, last in section_groups(material):
            for parent in big.windows(first, last):
                for window in small.windows(*parent):
                    yield Cut(*window, parent)
