"""What an ingest would do, and the results that need no reading of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from m3rag.errors import InputError, ReadError
from m3rag.store.protocol import DocumentRecord
from m3rag.sync.plan import Plan, Planned
from m3rag.sync.results import FileResult, IngestReport


def dry_run(plan: Plan, *, sync: bool, on_result: Callable[[FileResult], None] | None = None) -> IngestReport:
    """What a run would do, as far as it shows without parsing: a file that is damaged, not empty, is `added`."""
    results = []
    for number, (_, path) in enumerate(plan.found.files, 1):
        try:
            planned = plan.decide(number)
            if planned.status != "unchanged" and path.stat().st_size == 0:
                raise ReadError(f"{path}: is empty (0 bytes)")
            was = planned.donor.id if planned.status == "renamed" and planned.donor else ""
            chunks = planned.known.chunks if planned.known else 0
            results.append(FileResult(path, planned.document_id, planned.status, chunks, was=was))
        except (ReadError, InputError, OSError) as error:
            results.append(FileResult(path, "", "failed", message=without_path(path, error)))
        if on_result is not None:
            on_result(results[-1])
    last = [*map(removed, plan.gone), *map(unreadable, plan.found.unreadable)] if sync else []
    for result in last if on_result else ():
        on_result(result)  # type: ignore[misc]  # it is not None
    return IngestReport((*results, *last), plan.found.skipped, dry_run=True)


def unchanged(planned: Planned) -> FileResult:
    """The result of a file that the index holds as it is."""
    chunks = planned.known.chunks if planned.known else 0
    return FileResult(planned.path, planned.document_id, "unchanged", chunks)


def removed(record: DocumentRecord) -> FileResult:
    """The result of a document whose file is gone."""
    return FileResult(Path(record.source), record.id, "removed")


def unreadable(folder: Path) -> FileResult:
    """The result of a folder whose files cannot be seen, and so are not gone."""
    message = "the folder cannot be listed; check its permissions. What the index holds of it is kept"
    return FileResult(folder, "", "failed", message=message)


def without_path(path: Path, error: Exception) -> str:
    """An error's message without the path it begins with, which its result has anyway."""
    return str(error).removeprefix(f"{path}: ")
