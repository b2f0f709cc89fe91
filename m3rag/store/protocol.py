"""What a store must do: hold chunks with their three representations, and score them exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from m3rag.output import M3Output
from m3rag.types import Chunk, Leg, Metadata, ModelInfo

FORMAT = 1
"""Version of what a store writes; raised whenever an older m3rag could not read it."""

Scalar = str | int | float | bool
Filter = Mapping[str, Scalar | Sequence[Scalar]]
"""Conditions that must all hold: metadata key -> the value, or a list of the values allowed.

The key `document_id` means the chunk's document. A condition on a key that a chunk lacks fails; on
a metadata value that is a list it holds when any element is allowed.
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a collection says of itself: the model that filled it, and who wrote the format."""

    model: ModelInfo
    m3rag_version: str
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What a store remembers of a document apart from its chunks.

    Attributes:
        id: The document's id.
        title: For people.
        version: Names one exact set of chunks (content and chunking); the same version again
            means there is nothing to do. Chunk ids of different versions never collide.
        chunks: How many chunks the document has.
        source: The file it was read from, an absolute path; empty if it was no file.
        page_starts: Where in the document's text each page begins, in order; empty for formats
            without pages.
        metadata: JSON values.
    """

    id: str
    title: str
    version: str
    chunks: int
    source: str = ""
    page_starts: tuple[int, ...] = ()
    metadata: Metadata = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """How many pages the document has; 0 for formats without pages."""
        return len(self.page_starts)

    def page_of(self, position: int) -> int | None:
        """The number, from 1, of the page that a character of the document's text stands on."""
        return max(bisect_right(self.page_starts, position), 1) if self.page_starts else None


class Store(Protocol):
    """Chunks, each wholly there or not at all.

    Every method may be called from several threads. Scores follow `m3rag.scoring`. Ids given that
    are not stored are left out of results, never an error. Of a model that lacks a leg
    (`ModelInfo.legs`) nothing is kept for it, and asking for it is a ConfigurationError.
    """

    @property
    def manifest(self) -> Manifest:
        """The model, format and m3rag version this collection was made with."""

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Parts are consumed one at a time, so that a long document need not fit in memory. When
        this returns the document is durable. If it raises, or the process dies, the store holds
        the older version (or nothing) after the next open.
        """

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were."""

    def documents(self) -> list[DocumentRecord]:
        """All documents, ordered by id."""

    def document(self, document_id: str) -> DocumentRecord | None:
        """One document's record, None if it is not stored."""

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """All chunks of a document, in order of position; empty if it is not stored."""

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for."""

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `dense` may be approximate in which chunks it finds, never in a score it gives. `lexical`
        gives only chunks that share a token with the query.
        """

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing."""

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """

    def close(self) -> None:
        """Release the store; using it afterwards is an error. Closing twice is not."""
