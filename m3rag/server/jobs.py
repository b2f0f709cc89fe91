"""Uploads into the index: one thread, one file after the other, while searches go on."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3rag.errors import InputError
from m3rag.knowledge_base import KnowledgeBase
from m3rag.server.attempts import MOST_ATTEMPTS
from m3rag.server.errors import Refused, told
from m3rag.server.intake import Intake, Stopped, without_folder
from m3rag.server.job import Job, State
from m3rag.server.uploads import Uploads
from m3rag.store.protocol import DocumentRecord

log = logging.getLogger("m3rag.server")

MOST_WAITING = 500

MOST_ENDED = 100
"""How many jobs that have ended are remembered."""

DELETED = "the document was deleted while this upload was on its way"


class Jobs:
    """The queue and its thread.

    Args:
        kb: Where the files go.
        uploads: Where they lie.
    """

    def __init__(self, kb: KnowledgeBase, uploads: Uploads) -> None:
        self.kb = kb
        self.uploads = uploads
        self.attempts = uploads.attempts
        self._jobs: dict[str, Job] = {}
        self._paths: set[Path] = set()  # of jobs that have not ended
        self._deleted: set[Path] = set()  # of these, what a deletion covers
        self._held: dict[str, Path] = {}  # by job: files that a person has to decide about
        self._at: Path | None = None  # the file at work
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Job, Path] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._intake = Intake(kb, uploads, self._stopping)
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
        if (at := self._at) is not None:
            self.attempts.forgive(at)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def add(self, name: str, path: Path, *, partial: Path | None = None) -> dict[str, Any]:
        """Put an uploaded file in the queue.

        Args:
            name: Under which it is to be known.
            path: Its place.
            partial: Where it lies until then, hidden from `removed`.

        Returns:
            The job, as `get`.

        Raises:
            OSError: If it cannot be moved to its place.
            Refused: If too many are waiting.
        """
        with self._lock:
            if sum(not job.ended for job in self._jobs.values()) >= MOST_WAITING:
                raise Refused(503, f"{MOST_WAITING} uploads are waiting already", "Wait until some of them are done.")
            if partial is not None:
                partial.replace(path)
            self._release(name)
            job = Job(secrets.token_hex(8), name)
            self._jobs[job.id] = job
            self._paths.add(path)
            ended = [one.id for one in self._jobs.values() if one.ended and one.id not in self._held]
            for old in ended[: max(len(ended) - MOST_ENDED, 0)]:
                del self._jobs[old]
            shown = asdict(job)
        self._queue.put((job, path))
        return shown

    def refused(self, name: str, message: str) -> dict[str, Any]:
        """The job, as `get`, of an upload that could not be taken."""
        job = Job(secrets.token_hex(8), name, "failed", message=message)
        with self._lock:
            self._jobs[job.id] = job
            return asdict(job)

    def retry(self, job_id: str) -> dict[str, Any]:
        """Try a file again over which the server has died too often.

        Returns:
            The job, as `get`.

        Raises:
            Refused: If there is no such job, or its file is not kept.
        """
        with self._lock:
            job = self._known(job_id)
            path = self._held.pop(job_id, None)
            if path is None:
                raise Refused(409, "this upload cannot be tried again", "Send the file once more.")
            self.attempts.forget(path)
            job.state, job.message, job.can_retry = "queued", "", False
            self._paths.add(path)
            shown = asdict(job)
        self._queue.put((job, path))
        return shown

    def forget(self, job_id: str) -> None:
        """Forget a job that has ended; a file that could be tried again is discarded.

        Raises:
            Refused: If there is no such job, or it has not ended.
        """
        with self._lock:
            job = self._known(job_id)
            if not job.ended:
                raise Refused(
                    409, "this upload is still on its way", "Wait until it is done, then delete the document."
                )
            self._drop(job_id)

    def get(self, job_id: str) -> dict[str, Any] | None:
        """A job as JSON, None if it is not known (any more)."""
        with self._lock:
            job = self._jobs.get(job_id)
            return asdict(job) if job else None

    def all(self) -> list[dict[str, Any]]:
        """All jobs as JSON, the oldest first."""
        with self._lock:
            return [asdict(job) for job in self._jobs.values()]

    def coming(self, name: str) -> set[Path]:
        """The files of a name that are on their way: a removal that begins now covers them."""
        with self._lock:
            return {path for path in self._paths if path.name == name}

    def put_away(self, record: DocumentRecord) -> Callable[[], None]:
        """Before a document is removed: were the server killed then, its file would come in again.

        Returns:
            What to call in the end, see `Intake.set_aside`.

        Raises:
            OSError: If the file cannot be moved.
        """
        source = Path(record.source)
        return self._intake.set_aside(record.id, source) if self.uploads.holds(source) else lambda: None

    def removed(self, name: str, covered: Set[Path] = frozenset()) -> None:
        """Discard the files of a document that has been removed; those on their way see to it when they end.

        Args:
            name: The document.
            covered: What was on its way when the removal began; it ends as failed.
        """
        found = self.uploads.named(name)
        with self._lock:
            self._release(name)
            self._deleted |= self._paths & covered
            left = [path for path in found if path not in self._paths or path in covered]
        for path in covered:
            self._intake.remove(name, path)  # which has been written since the removal
        record = self._intake.document(name)  # of an upload that has come, and ended, since the removal
        kept = Path(record.source) if record is not None and record.source else None
        for path in left:
            if path != kept:
                self.uploads.discard(path)

    def _set(self, job: Job, **values: Any) -> None:
        with self._lock:
            for name, value in values.items():
                setattr(job, name, value)

    def _recover(self) -> None:
        try:
            sources = [record.source for record in self.kb.documents()] if self.kb.exists else []
            waiting = self.uploads.recover(sources)
            self.attempts.keep(waiting)
            for path in waiting:
                (self.add if self.attempts.of(path) < MOST_ATTEMPTS else self._hold)(path.name, path)
        except Exception as error:  # noqa: BLE001 - what an earlier run has left must not end this one
            log.warning("uploads of an earlier run are left for the next start: %s", error)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopping.is_set():
            job, path = item
            try:
                self.attempts.begin(path)
                self._at = path
                self._take(job, path)
                self._end(path)
                self._tidy(job.name, path)
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001 - one file must not end the queue
                if self._stopping.is_set():  # the index may be closed: the file goes on with the next start
                    return
                deleted = path in self._deleted
                message = DELETED if deleted else told(error)[1]
                self._end(path)
                self._tidy(job.name, path, deleted=deleted)
                self._set(job, state="failed", message=without_folder(message, path))

    def _take(self, job: Job, path: Path) -> None:
        def on_chunks(done: int, total: int) -> None:
            self._set(job, state="encoding", done=done, total=total)

        self._set(job, state="reading")
        result = self._intake.take(job.name, path, on_chunks)
        if path in self._deleted:
            raise InputError(DELETED)
        state: State = "unchanged" if result.status == "unchanged" else "done"
        self._set(job, state=state, message=result.message, document_id=result.document_id, done=result.chunks)
        if not job.total:
            self._set(job, total=result.chunks)

    def _end(self, path: Path) -> None:
        self._at = None
        self.attempts.forget(path)
        with self._lock:
            self._paths.discard(path)
            self._deleted.discard(path)

    def _tidy(self, name: str, path: Path, *, deleted: bool = False) -> None:
        """Discard the file of a job that has ended, unless the index holds what was made from it."""
        if self._stopping.is_set():
            return
        try:
            if deleted:
                self._intake.remove(name, path)
            if not self._intake.made_from(name, path):
                self.uploads.discard(path)
        except Exception as error:  # noqa: BLE001 - an index that cannot be asked must not end the queue
            log.warning("the upload %s is left for the next start: %s", name, error)

    def _hold(self, name: str, path: Path) -> None:
        """Show a file as failed over which the server has died too often, and leave it where it is."""
        message = (
            f"{name} was begun {MOST_ATTEMPTS} times, and each time the server ended before it was done: try it "
            "again, or leave it out (the server's log may say why)"
        )
        job = Job(secrets.token_hex(8), name, "failed", message=message, can_retry=True)
        with self._lock:
            self._jobs[job.id] = job
            self._held[job.id] = path

    def _known(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise unknown_job()
        return job

    def _release(self, name: str) -> None:
        """Drop what is held of a name, which a newer upload replaces or a deletion covers."""
        for job_id in [one for one, path in self._held.items() if path.name == name]:
            self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        self._jobs.pop(job_id)
        path = self._held.pop(job_id, None)
        if path is not None:
            self.attempts.forget(path)
            self.uploads.discard(path)


def unknown_job() -> Refused:
    """The answer to who asks for a job that is not known (any more)."""
    return Refused(404, "there is no such upload (any more)", "The list of documents says what is there.")
