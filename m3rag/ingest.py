"""From files to stored chunks: read in a process of its own, split, encode together, write each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from m3rag.chunking import Chunker, document_version
from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError, ReadError
from m3rag.reading import Found
from m3rag.reading.discover_paths import is_gone
from m3rag.reading.readers import sandbox_of
from m3rag.reading.sandbox import Limits, Sandbox
from m3rag.retrieval.options import require_known
from m3rag.store.protocol import DocumentRecord, Store
from m3rag.sync.batches import Batches, Prepared
from m3rag.sync.dry_run import dry_run, removed, unchanged, unreadable, without_path
from m3rag.sync.encoding import CHUNKS_AT_ONCE, encoded_parts
from m3rag.sync.hashes import FileHashes
from m3rag.sync.plan import Plan, Planned
from m3rag.sync.results import FileResult, IngestReport, Progress, Status
from m3rag.types import Document

__all__ = [
    "CHUNKS_AT_ONCE",
    "FileResult",
    "IngestOptions",
    "IngestReport",
    "Ingestor",
    "Progress",
    "Status",
    "encoded_parts",
    "take_in",
]


REMOVED_AT_ONCE = 100

LookAgain = Callable[[Sequence[Path]], Found]
"""Finds the files of folders, by the rules they were found by before."""


class IngestOptions(TypedDict, total=False):
    """What `KnowledgeBase.ingest` and `sync` may be told; None is the default of each.

    Attributes:
        include: Only files of folders that one of these patterns matches; patterns as in `.gitignore`,
            see `m3rag.reading.discover_rules.Rules`. One alone may be given as it is.
        exclude: Files and folders to leave out.
        gitignore: Leave out what `.gitignore` files do.
        password: For encrypted files.
        limits: What reading one file may take, see `m3rag.reading.sandbox.Limits`.
        dry_run: Say what would be done, and do nothing; no model is loaded.
        on_result: Called with each file's result; the document is durable then.
        on_progress: Called as chunks are written.
    """

    include: Iterable[str] | None
    exclude: Iterable[str] | None
    gitignore: bool | None
    password: str | None
    limits: Limits | None
    dry_run: bool | None
    on_result: Callable[[FileResult], None] | None
    on_progress: Callable[[Progress], None] | None


_PATTERNS = ("include", "exclude")

_KINDS: Mapping[str, tuple[Any, str]] = {
    "gitignore": (bool, "True or False"),
    "password": (str, "a text"),
    "limits": (Limits, "m3rag.reading.Limits(...)"),
    "dry_run": (bool, "True or False"),
    "on_result": (Callable, "a function"),
    "on_progress": (Callable, "a function"),
    "remove_most": (bool, "True or False"),  # of `sync` alone
}


def checked(options: IngestOptions, **more: object) -> IngestOptions:
    """Options that can be used: those that are None left out, and patterns as a tuple.

    Args:
        options: Of `ingest`, or of `sync`.
        **more: What `sync` takes beside them; it is checked alone.

    Raises:
        InputError: If one is unknown or of another type.
    """
    require_known("sync" if more else "ingest", options, (*IngestOptions.__annotations__, *more))
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, value in {**given, **more}.items():
        if name in _PATTERNS:
            given[name] = _patterns(name, value)
        elif not isinstance(value, _KINDS[name][0]):
            # Its value is not shown: a password is one.
            raise InputError(f"{name} is of type {type(value).__name__}, must be {_KINDS[name][1]}")
    return cast("IngestOptions", given)


def _patterns(name: str, given: object) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    for one in found:
        if not isinstance(one, str):
            raise InputError(
                f"{name} holds {one!r}, must be patterns as in .gitignore, such as {name}=['*.md', 'drafts/']"
            )
    return found


@dataclass(frozen=True, slots=True)
class Ingestor:
    """Brings files into a store. Each document is written wholly or not at all.

    Attributes:
        store: Where to.
        encoder: Gives the model, which so need not be loaded for files that have not changed.
        chunker: How documents are split.
        hashes: The content hashes of files.
        sandbox: What reads them.
        max_bytes: What a file may have.
        password: For encrypted files.
        reader: Whose formats the sandbox reads, see `m3rag.reading.readers`.
    """

    store: Store
    encoder: Callable[[], Encoder]
    chunker: Chunker
    hashes: FileHashes
    sandbox: Sandbox
    max_bytes: int
    password: str | None = None
    reader: str = "builtin"

    def run(
        self,
        found: Found,
        *,
        sync: bool = False,
        remove_most: bool = False,
        look_again: LookAgain | None = None,
        on_result: Callable[[FileResult], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> IngestReport:
        """Ingest the files found; a bad one is reported and the rest goes on.

        Args:
            found: The files.
            sync: Also remove the documents of the folders whose files are gone, and recognise files that
                were renamed.
            remove_most: Even if these are most of what the index holds of a folder.
            look_again: Gives the files of folders as they are by then. It is called before documents are removed
                whose files are there: they may be left out by a rule, or have come back since they were found.
            on_result: Called with each file's result, when it is durable.
            on_progress: Called as chunks are written.

        Raises:
            InputError: Most documents of a folder would be removed; nothing was changed.
        """
        plan = plan_of(
            found, self.store, self.chunker, self.hashes, max_bytes=self.max_bytes, sync=sync, reader=self.reader
        )
        if sync and not remove_most:
            plan.refuse_to_empty()
        run = _Run(self, plan, look_again, on_result, on_progress)
        for number in range(1, len(found.files) + 1):
            run.file(number)
        run.batches.flush()
        return run.finished(sync=sync)

    def prepare(self, planned: Planned) -> Prepared:
        """Read and split a file.

        Raises:
            InputError, ReadError: It cannot be.
        """
        document = self.sandbox.read(planned.path, root=planned.root, max_bytes=self.max_bytes, password=self.password)
        document = replace(document, id=planned.document_id, reader=self.reader)
        chunks = self.chunker.split(document, self.encoder())
        record = DocumentRecord(
            id=document.id,
            title=document.title,
            version=document_version(document, self.chunker),
            chunks=len(chunks),
            source=planned.source,
            page_starts=tuple(page.start for page in document.pages),
            metadata=document.metadata,
        )
        return Prepared(planned, record, chunks, "; ".join(document.warnings))


@dataclass(slots=True)
class _Run:
    """One run over the files found."""

    ingestor: Ingestor
    plan: Plan
    look_again: LookAgain | None
    on_result: Callable[[FileResult], None] | None
    on_progress: Callable[[Progress], None] | None
    batches: Batches = field(init=False)
    results: dict[int, FileResult] = field(default_factory=dict)
    last: list[FileResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = Batches(
            self.ingestor.store, self.ingestor.encoder, self.written, self.step, late=self.ingestor.chunker.late
        )

    def file(self, number: int) -> None:
        path = self.plan.found.files[number - 1][1]
        self._progress(number, 0, 0)
        planned: Planned | None = None
        try:
            planned = self.plan.decide(number)
            if planned.status == "unchanged" and planned.known is not None:
                self._result(number, unchanged(planned))
                return
            prepared = self.ingestor.prepare(planned)
        except (ReadError, InputError) as error:
            # Were it to replace a renamed document, that one is kept: only the next run may remove it.
            identity = planned.document_id if planned else ""
            self._result(number, FileResult(path, identity, "failed", message=without_path(path, error)))
            return
        self.batches.add(prepared)

    def step(self, one: Prepared, done: int) -> None:
        self._progress(one.planned.number, done, len(one.chunks))

    def written(self, one: Prepared, result: FileResult) -> None:
        if result.was:
            self.ingestor.store.delete_documents([result.was])
        if result.status != "failed":
            self.plan.written(one.record)
        self._result(one.planned.number, result)

    def finished(self, *, sync: bool) -> IngestReport:
        found = self.plan.found
        folders = [folder for folder in found.folders if not is_gone(folder)] if sync else []
        if folders and self.look_again and not all(is_gone(record.source) for record in self.plan.gone):
            self.plan.spare(self.look_again(folders))
        gone = self.plan.gone if sync else []
        for start in range(0, len(gone), REMOVED_AT_ONCE):
            some = gone[start : start + REMOVED_AT_ONCE]
            self.ingestor.store.delete_documents([record.id for record in some])
            for record in some:
                self.ingestor.hashes.forget(Path(record.source))
                self._last(removed(record))
        for folder in found.unreadable if sync else []:
            self._last(unreadable(folder))
        ordered = [self.results[number] for number in sorted(self.results)]
        return IngestReport((*ordered, *self.last), found.skipped)

    def _progress(self, number: int, done: int, chunks: int) -> None:
        if self.on_progress is not None:
            files = self.plan.found.files
            self.on_progress(Progress(files[number - 1][1], number, len(files), done, chunks))

    def _result(self, number: int, result: FileResult) -> None:
        self.results[number] = result
        if self.on_result is not None:
            self.on_result(result)

    def _last(self, result: FileResult) -> None:
        self.last.append(result)
        if self.on_result is not None:
            self.on_result(result)


def take_in(
    found: Found,
    store: Store | None,
    options: IngestOptions,
    *,
    encoder: Callable[[], Encoder],
    chunker: Chunker,
    hashes_file: Path | None,
    max_bytes: int,
    sync: bool,
    remove_most: bool,
    look_again: LookAgain,
    reader: str = "builtin",
) -> IngestReport:
    """Ingest or sync the files found, or say what that would do.

    Args:
        found: The files.
        store: Where to; None, in a dry run alone, is an index that is not there yet.
        options: What the user wants; `include`, `exclude` and `gitignore` have done their part.
        encoder: Gives the model.
        chunker: How documents are split.
        hashes_file: Where the files' content hashes are remembered; None for nowhere.
        max_bytes: What a file may have.
        sync: See `Ingestor.run`, as for the next.
        remove_most: See there.
        look_again: See there.
        reader: What reads the files, see `m3rag.reading.readers`.

    Raises:
        ImportError: The reader is not installed.
    """
    on_result, dry = options.get("on_result"), bool(options.get("dry_run"))
    hashes = FileHashes(hashes_file, writable=not dry)
    with hashes, sandbox_of(reader, limits=options.get("limits")) as sandbox:
        if dry or store is None:
            plan = plan_of(found, store, chunker, hashes, max_bytes=max_bytes, sync=sync, reader=reader)
            if sync and not remove_most:
                plan.refuse_to_empty()
            return dry_run(plan, sync=sync, on_result=on_result)
        ingestor = Ingestor(store, encoder, chunker, hashes, sandbox, max_bytes, options.get("password"), reader)
        progress = options.get("on_progress")
        return ingestor.run(
            found, sync=sync, remove_most=remove_most, look_again=look_again, on_result=on_result, on_progress=progress
        )


def plan_of(
    found: Found,
    store: Store | None,
    chunker: Chunker,
    hashes: FileHashes,
    *,
    max_bytes: int,
    sync: bool,
    reader: str = "builtin",
) -> Plan:
    """What is to be done with the files found; a store that is None is an index that is not there yet."""

    def version_of(content_hash: str) -> str:
        return document_version(Document(id="", text="", content_hash=content_hash, reader=reader), chunker)

    return Plan.of(found, store, hashes=hashes, version_of=version_of, max_bytes=max_bytes, sync=sync)
