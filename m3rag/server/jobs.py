"""Uploads into the index: one thread, one file after the other, while searches go on."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from m3rag.errors import InputError
from m3rag.ingest import FileResult, Progress
from m3rag.knowledge_base import KnowledgeBase
from m3rag.reading import formats_of, supported_suffixes
from m3rag.server.errors import Refused, about, printable, told
from m3rag.server.uploads import Uploads
from m3rag.store.protocol import DocumentRecord

log = logging.getLogger("m3rag.server")

State = Literal["queued", "reading", "encoding", "done", "unchanged", "failed"]

STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("done", "unchanged", "failed")

MOST_WAITING = 500

MOST_ENDED = 100
"""How many jobs that have ended are remembered."""


@dataclass(slots=True)
class Job:
    """One upload on its way into the index.

    Attributes:
        id: Random.
        name: The name shown, which becomes the document's id.
        state: Where it is.
        done: Chunks written.
        total: Chunks to write; 0 until it has been read.
        message: Why it failed, or what a person should know.
        document_id: The document, when it is in the index.
    """

    id: str
    name: str
    state: State = "queued"
    done: int = 0
    total: int = 0
    message: str = ""
    document_id: str | None = None


class _Stopped(BaseException):
    """The server ends: passes through what catches errors of files."""


class Jobs:
    """The queue and its thread.

    Args:
        kb: Where the files go.
        uploads: Where they lie.
    """

    def __init__(self, kb: KnowledgeBase, uploads: Uploads) -> None:
        self.kb = kb
        self.uploads = uploads
        self._jobs: dict[str, Job] = {}
        self._paths: set[Path] = set()  # of jobs that have not ended
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Job, Path] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, to go on with what an earlier server was killed over.

        Before anything is uploaded: what is on its way would be taken for left behind.
        """
        self._recover()
        self._thread = threading.Thread(target=self._run, name="m3rag-ingest", daemon=True)
        self._thread.start()

    def stop(self, *, seconds: float = 5.0) -> None:
        """End: what has not been written wholly is not written, and goes on with the next start."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def add(self, name: str, path: Path) -> dict[str, Any]:
        """Put an uploaded file in the queue.

        Returns:
            The job, as `get`.

        Raises:
            Refused: If too many are waiting.
        """
        with self._lock:
            if sum(job.state not in ENDED for job in self._jobs.values()) >= MOST_WAITING:
                raise Refused(503, f"{MOST_WAITING} uploads are waiting already", "Wait until some of them are done.")
            job = Job(secrets.token_hex(8), name)
            self._jobs[job.id] = job
            self._paths.add(path)
            ended = [one.id for one in self._jobs.values() if one.state in ENDED]
            for old in ended[: max(len(ended) - MOST_ENDED, 0)]:
                del self._jobs[old]
            shown = asdict(job)
        self._queue.put((job, path))
        return shown

    def get(self, job_id: str) -> dict[str, Any] | None:
        """A job as JSON, None if it is not known (any more)."""
        with self._lock:
            job = self._jobs.get(job_id)
            return asdict(job) if job else None

    def all(self) -> list[dict[str, Any]]:
        """All jobs as JSON, the oldest first."""
        with self._lock:
            return [asdict(job) for job in self._jobs.values()]

    def removed(self, name: str) -> None:
        """Discard the files of a document that has been removed; those on their way see to it when they end."""
        found = self.uploads.named(name)
        with self._lock:
            left = [path for path in found if path not in self._paths]
        for path in left:
            self.uploads.discard(path)

    def _set(self, job: Job, **values: Any) -> None:
        with self._lock:
            for name, value in values.items():
                setattr(job, name, value)

    def _recover(self) -> None:
        try:
            sources = [record.source for record in self.kb.documents()] if self.kb.exists else []
            for path in self.uploads.recover(sources):
                self.add(path.name, path)
        except Exception as error:  # noqa: BLE001 - what an earlier run has left must not end this one
            log.warning("uploads of an earlier run are left for the next start: %s", error)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopping.is_set():
            job, path = item
            try:
                self._ingest(job, path)
                self._end(path)
                if self._document(job.name) is None:  # removed since it was written
                    self.uploads.discard(path)
            except _Stopped:
                return
            except Exception as error:  # noqa: BLE001 - one file must not end the queue
                self._end(path)
                self.uploads.discard(path)
                _, message, _ = told(error)
                self._set(job, state="failed", message=_without_folder(message, path))

    def _end(self, path: Path) -> None:
        with self._lock:
            self._paths.discard(path)

    def _ingest(self, job: Job, path: Path) -> None:
        self._set(job, state="reading")
        suffixes = supported_suffixes(formats_of(self.kb.settings.reader))
        if path.suffix.lower() not in suffixes:
            known = " ".join(sorted(suffixes))
            raise InputError(f"{job.name} is of no known format; give it one of these suffixes: {known}")
        end = self._make_way(job.name, path)
        result: FileResult | None = None
        try:
            report = self.kb.ingest(path.parent, on_progress=self._progress(job))
            result = next(iter(report.results), None)
        finally:
            written = result is not None and result.status not in ("failed", "unchanged")
            if not written and not self._stopping.is_set():
                self.uploads.discard(path)
            end(not written and self._document(job.name) is not None)  # else it was deleted meanwhile
        if result is None:
            raise InputError(f"{job.name} is no file that m3rag reads: give it another name")
        if result.status == "failed":
            self._set(job, state="failed", message=about(job.name, _without_folder(result.message, path)))
        else:
            state: State = "unchanged" if result.status == "unchanged" else "done"
            self._set(job, state=state, message=result.message, document_id=result.document_id, done=result.chunks)
            if not job.total:
                self._set(job, total=result.chunks)

    def _make_way(self, name: str, path: Path) -> Callable[[bool], None]:
        """Set aside the upload that this one may replace; what to call in the end, see `Uploads.set_aside`."""
        record = self._document(name)
        source = Path(record.source) if record is not None and record.source else None
        if source is None or source == path:
            return lambda _back: None
        if self.uploads.holds(source):
            return self.uploads.set_aside(source)
        raise InputError(f"the index holds another document {name}, which was no upload: rename this one")

    def _document(self, name: str) -> DocumentRecord | None:
        return self.kb.store.document(name) if self.kb.exists else None

    def _progress(self, job: Job) -> Callable[[Progress], None]:
        def progress(at: Progress) -> None:
            if self._stopping.is_set():
                raise _Stopped
            if at.chunks:
                self._set(job, state="encoding", done=at.done, total=at.chunks)

        return progress


def _without_folder(message: str, path: Path) -> str:
    return printable(message.replace(str(path), path.name).replace(str(path.parent), path.name))
