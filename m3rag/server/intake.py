"""One uploaded file into the index, in place of the upload of the same name before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from m3rag.errors import InputError, ReadError
from m3rag.ingest import FileResult, Progress
from m3rag.knowledge_base import KnowledgeBase
from m3rag.reading import formats_of, supported_suffixes
from m3rag.server.errors import about, printable
from m3rag.server.uploads import Uploads
from m3rag.store.protocol import DocumentRecord


class Stopped(BaseException):
    """The server ends: passes through what catches errors of files."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes files in.

    Attributes:
        kb: Where they go.
        uploads: Where they lie.
        stopping: Set when the server ends.
    """

    kb: KnowledgeBase
    uploads: Uploads
    stopping: threading.Event

    def take(self, name: str, path: Path, on_chunks: Callable[[int, int], None]) -> FileResult:
        """Read, encode and write a file.

        Args:
            name: Under which it is known; becomes the document's id.
            path: Where it lies. It is removed if it is not written, unless the server ends.
            on_chunks: Told how many of how many chunks are written.

        Raises:
            InputError, ReadError: It cannot be; the message names it.
            Stopped: The server ends. The file stays for its next start.
        """
        suffixes = supported_suffixes(formats_of(self.kb.settings.reader))
        if path.suffix.lower() not in suffixes:
            known = " ".join(sorted(suffixes))
            raise InputError(f"{name} is of no known format; give it one of these suffixes: {known}")
        if not self.kb.found(path.parent).files:
            raise InputError(f"{name} is no file that m3rag reads: give it another name")
        end = self._make_way(name, path)
        try:
            report = self.kb.ingest(path.parent, on_progress=self._telling(on_chunks))
        finally:
            if not self.stopping.is_set():  # else the index may be closed, and the next start tidies up
                if not self.made_from(name, path):
                    self.uploads.discard(path)
                end()
        result = report.results[0]
        if result.status == "failed":
            raise ReadError(about(name, without_folder(result.message, path)))
        return result

    def document(self, name: str) -> DocumentRecord | None:
        """What the index holds under a name."""
        return self.kb.store.document(name) if self.kb.exists else None

    def made_from(self, name: str, path: Path) -> bool:
        """Whether the index holds a document that was made from this upload, whose folder is its own."""
        record = self.document(name)
        return record is not None and bool(record.source) and Path(record.source).parent == path.parent

    def remove(self, name: str, path: Path) -> None:
        """Remove a document if it was made from this upload."""
        if self.made_from(name, path):
            with suppress(InputError):  # somebody else was faster
                self.kb.remove([name])

    def set_aside(self, name: str, path: Path) -> Callable[[], None]:
        """Put the file of a document out of the way.

        Returns:
            What to call in the end: it brings the file back if the index still holds what was made from it.
        """
        end = self.uploads.set_aside(path)

        def settle() -> None:
            end(self.made_from(name, path))
            if not self.made_from(name, path):  # removed meanwhile, when there was no file to discard
                self.uploads.discard(path)

        return settle

    def _make_way(self, name: str, path: Path) -> Callable[[], None]:
        """Set aside the upload that this one may replace; what to call in the end, see `set_aside`."""
        record = self.document(name)
        source = Path(record.source) if record is not None and record.source else None
        if source is None or source == path:
            return lambda: None
        if self.uploads.holds(source):
            return self.set_aside(name, source)
        raise InputError(f"the index holds another document {name}, which was no upload: rename this one")

    def _telling(self, on_chunks: Callable[[int, int], None]) -> Callable[[Progress], None]:
        def progress(at: Progress) -> None:
            if self.stopping.is_set():
                raise Stopped
            if at.chunks:
                on_chunks(at.done, at.chunks)

        return progress


def without_folder(message: str, path: Path) -> str:
    """A message about an upload without the random folder that it lies in."""
    return printable(message.replace(str(path), path.name).replace(str(path.parent), path.name))
