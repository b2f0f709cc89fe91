"""What a store must do: hold chunks with their three representations, and score them exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from m3rag.output import M3Output
from m3rag.types import Chunk, Leg, Metadata, ModelInfo

FORMAT = 4
"""Version of what a store writes; raised whenever an older m3rag could not read it, or would write less.

2: chunks have `keys`, `numbers` and `times` beside `terms`, for the filters `$exists` and ranges.
3: where a chunk stands (`m3rag.store.filters.PLACE`) is among them.
4: an index in a folder has its token vectors in a file of their own; collections of the other stores are as before.
"""

Scalar = str | int | float | bool
"""A value of metadata that filters compare."""

Filter = Mapping[str, Any]
"""Conditions on a chunk's metadata that must all hold, in operators; `m3rag.store.filters` says what each means.

`{"lang": ["de", "zh"], "year": {"$gte": 2001, "$lt": 2010}, "$not": {"draft": True}}`. The key
`document_id` means the chunk's document; `source`, `page` and `headings` say where it stands.
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a collection says of itself: the model that filled it, and who wrote the format.

    Attributes:
        model: Whose representations it holds.
        m3rag_version: Who made it.
        format: Version of what is written.
        codec: How token vectors are kept (`m3rag.store.codec`); collections made before there was a choice
            say nothing, and have float16.
    """

    model: ModelInfo
    m3rag_version: str
    format: int = FORMAT
    codec: str = "float16"


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What a store remembers of a document apart from its chunks.

    Attributes:
        id: The document's id.
        title: For people.
        version: Names one exact set of chunks (content and chunking); the same version again
            means there is nothing to do. Chunk ids of different versions never collide. Empty: the
            document is made of single chunks (`Store.upsert`) and lives as long as it has chunks.
        chunks: How many chunks the document has. A store keeps it true when single chunks come
            or go.
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

    @property
    def revision(self) -> str | None:
        """Another text after every change, never that of other contents; None where the store cannot tell.

        By it what is derived from the chunks, such as BM25, knows without reading them that it is up to date.
        """

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        Parts are consumed one at a time, so that a long document need not fit in memory. When
        this returns the document is durable and has exactly these chunks, whatever `upsert` had
        added. If it raises, or the process dies, the store holds the older version (or nothing)
        after the next open.

        Raises:
            InputError: If the parts are not what the record promises, or a chunk's id is taken by
                another document.
        """

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Add single chunks, or replace those of the same id, outside a whole-document write.

        A chunk joins the document that it names, whose record stays and counts it; a document that
        is not stored gets a record with its id as the title and no version. A chunk that was of
        another document leaves that one. The document's next whole write replaces it with the rest.

        Each chunk is wholly there or not; all are durable when this returns. If it raises an
        InputError nothing has changed; if it raises another error, or the process dies, each chunk
        is as before or as given.

        Args:
            chunks: `n` chunks of any documents; none is not an error.
            output: Their representations, `n` texts.

        Raises:
            InputError: If chunks and representations differ in number, an id comes twice, the
                dimensions are not the model's, metadata are not JSON or a text is not Unicode.
        """

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """Remove single chunks; returns how many there were.

        A document's record counts what is left; one without a version goes with its last chunk.
        """

    def delete(self, filter: Filter) -> int:
        """Remove every chunk that passes a filter, as `delete_chunks` does; returns how many there were.

        Raises:
            InputError: If the filter lets every chunk pass by saying nothing (to empty a store,
                `delete_documents`), or makes no sense.
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

    def scan(
        self, *, filter: Filter | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """One page of the chunks that pass a filter, in an order of the store's own.

        The order stays while nothing is written, so that all pages together have every chunk once.
        A chunk written between two pages may be missed; one that stays is never missed or doubled.

        Args:
            filter: Conditions on the chunks' metadata; the same for all pages.
            limit: Most chunks of a page; >= 1.
            cursor: What the page before gave; None for the first page.

        Returns:
            The chunks, and the cursor of the next page, None where there is none.

        Raises:
            InputError: If `limit` is below 1, or the cursor is none that this store gives.
        """

    def count(self, *, filter: Filter | None = None) -> int:
        """Number of chunks that pass the filter."""

    def candidates(self, query: M3Output, leg: Leg, *, k: int, filter: Filter | None = None) -> list[tuple[str, float]]:
        """The best `k` chunks of one leg for one query: (chunk id, score), best first, ties by id.

        `dense` may be approximate in which chunks it finds, never in a score it gives. `lexical`
        gives only chunks that share a token with the query, and fewer than `k` only where no more do.
        """

    def score(self, query: M3Output, leg: Leg, chunk_ids: Sequence[str]) -> dict[str, float]:
        """The exact score of one leg for the chunks named; 0.0 where a chunk shares nothing."""

    def representations(self, chunk_ids: Sequence[str]) -> M3Output:
        """The stored representations, in the order asked for.

        Raises:
            InputError: If a chunk is not stored (the rows could not be told apart).
        """

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that the collection remembers beside its chunks, such as learned weights: a copy."""

    def update_settings(self, values: Mapping[str, Any]) -> None:
        """Remember some values with those that are there; None forgets a key. Durable, all or none.

        Raises:
            InputError: If a key is not a string, or a value not JSON.
        """

    def close(self) -> None:
        """Release the store; using it afterwards is an error. Closing twice is not."""
