"""What became of files: the results that an ingest hands out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Status = Literal["added", "updated", "renamed", "unchanged", "removed", "failed"]
"""What became of a file."""

STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file.

    Attributes:
        path: The file; for one that was removed, where it was.
        document_id: Its identity in the index; empty if it failed before it had one.
        status: `renamed` has the content of a file that is gone, and replaced it, without encoding;
            `failed` leaves what the index held of it untouched.
        chunks: Chunks the index now holds of it; 0 where nothing was written.
        encoded: Texts that were encoded for it; the others of its chunks were in the index already.
        message: Why it failed, or what a person should know (such as a page without text).
        was: The id of the document that was renamed.
    """

    path: Path
    document_id: str
    status: Status
    chunks: int = 0
    encoded: int = 0
    message: str = ""
    was: str = ""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all files.

    Attributes:
        results: One a file, in the order they were found, then those that were removed.
        skipped: Files seen in a folder that are of no known format, or not to be read.
        dry_run: Whether nothing was done, and the results say what would be.
    """

    results: tuple[FileResult, ...]
    skipped: tuple[Path, ...]
    dry_run: bool = False

    def count(self, status: Status) -> int:
        """How many files ended with a status."""
        return sum(result.status == status for result in self.results)

    @property
    def counts(self) -> dict[Status, int]:
        """How many files ended with each status."""
        return {status: self.count(status) for status in STATUSES}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an ingest stands: file `file` of `files`, of whose `chunks` `done` are written."""

    path: Path
    file: int
    files: int
    done: int
    chunks: int
