"""From files to stored chunks: read, split, encode, write; one file after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m3rag.chunking import Chunker, document_version
from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError, ReadError
from m3rag.output import M3Output
from m3rag.reading import Found, read
from m3rag.store.protocol import DocumentRecord, Store
from m3rag.types import Chunk, Document

Status = Literal["added", "updated", "unchanged", "failed"]

CHUNKS_AT_ONCE = 64
"""Chunks encoded and written together: enough for full batches, little enough for any memory."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file.

    Attributes:
        path: The file.
        document_id: Its identity in the index; empty if it failed before it had one.
        status: `failed` leaves what the index held of it untouched.
        chunks: Chunks the index now holds of it.
        message: Why it failed, or what a person should know (such as a page without text).
    """

    path: Path
    document_id: str
    status: Status
    chunks: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all files.

    Attributes:
        results: One a file, in the order they were read.
        skipped: Files seen in a folder that are of no known format.
    """

    results: tuple[FileResult, ...]
    skipped: tuple[Path, ...]

    def count(self, status: Status) -> int:
        """How many files ended with a status."""
        return sum(result.status == status for result in self.results)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an ingest stands: file `file` of `files`, of whose `chunks` `done` are written."""

    path: Path
    file: int
    files: int
    done: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Ingestor:
    """Brings files into a store. Each document is written wholly or not at all."""

    store: Store
    encoder: Encoder
    chunker: Chunker
    max_bytes: int

    def run(
        self,
        found: Found,
        *,
        on_result: Callable[[FileResult], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> IngestReport:
        """Ingest the files found; a bad one is reported and the rest goes on."""
        results = []
        for number, (root, path) in enumerate(found.files, 1):

            def step(done: int, chunks: int, path: Path = path, number: int = number) -> None:
                if on_progress is not None:
                    on_progress(Progress(path, number, len(found.files), done, chunks))

            step(0, 0)
            try:
                results.append(self._ingest(root, path, step))
            except (ReadError, InputError) as error:
                results.append(FileResult(path, "", "failed", message=str(error).removeprefix(f"{path}: ")))
            if on_result is not None:
                on_result(results[-1])
        return IngestReport(tuple(results), found.skipped)

    def _ingest(self, root: Path, path: Path, step: Callable[[int, int], None]) -> FileResult:
        document = read(path, root=root, max_bytes=self.max_bytes)
        message = "; ".join(document.warnings)
        known = self.store.document(document.id)
        version = document_version(document, self.chunker)
        if known is not None and _is_another_file(known.source, path):
            taken = f"the index already holds {document.id} from {known.source}: ingest the folder that holds both"
            return FileResult(path, document.id, "failed", message=taken)
        if known is not None and known.version == version:
            return FileResult(path, document.id, "unchanged", known.chunks, message)
        chunks = self.chunker.split(document, self.encoder)
        parts = encoded_parts(chunks, self.encoder, on_part=step)
        self.store.put_document(_record(document, path, version, len(chunks)), parts)
        return FileResult(path, document.id, "updated" if known else "added", len(chunks), message)


def encoded_parts(
    chunks: Sequence[Chunk], encoder: Encoder, *, on_part: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    """Encode a document's chunks as a store takes them, a part at a time.

    Args:
        chunks: In order.
        encoder: The model.
        on_part: Called with the number of chunks written and of all, each time a part is.
    """
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        part = chunks[start : start + CHUNKS_AT_ONCE]
        yield part, encoder.encode_documents([chunk.encoded_text for chunk in part])
        if on_part is not None:
            on_part(start + len(part), len(chunks))


def _is_another_file(source: str, path: Path) -> bool:
    # A folder that moved is the same document; a second file of the same name is not.
    return bool(source) and Path(source) != path.resolve() and Path(source).exists()


def _record(document: Document, path: Path, version: str, chunks: int) -> DocumentRecord:
    return DocumentRecord(
        id=document.id,
        title=document.title,
        version=version,
        chunks=chunks,
        source=str(path.resolve()),
        page_starts=tuple(page.start for page in document.pages),
        metadata=document.metadata,
    )
