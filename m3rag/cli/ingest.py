"""`m3rag ingest`: files and folders into the index, once, as a mirror of a folder, or all the time."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, counted, in_line, note, print_json, shows_progress
from m3rag.cli.ingest_progress import ProgressBar
from m3rag.cli.options import Debug, Index, Json, Model, Quiet, path_of

if TYPE_CHECKING:
    from m3rag.ingest import FileResult, IngestOptions, IngestReport
    from m3rag.knowledge_base import KnowledgeBase

SHOWN_WHILE_WATCHING = ("added", "updated", "renamed", "removed", "failed")


@command
def ingest(
    paths: Annotated[
        list[Path], typer.Argument(parser=path_of, metavar="PATH", help="Files and folders.", show_default=False)
    ],
    index: Index = None,
    model: Model = None,
    sync: Annotated[bool, typer.Option("--sync", help="Also remove what is gone from the folders.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --sync: even if that is most of a folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done, and do nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="--sync, and again whenever files change.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks of --watch.", min=0.1)] = 2.0,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files of folders that match, as in .gitignore: '*.md', 'notes/'.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Files and folders to leave out, as in .gitignore.")] = None,
    gitignore: Annotated[bool, typer.Option("--gitignore", help="Leave out what .gitignore files do.")] = False,
    password_file: Annotated[
        Path | None, typer.Option(help="A file whose first line is the password of encrypted files.")
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(help="docling reads PDF, DOCX, PPTX and images by its models (an extra).", show_default="builtin"),
    ] = None,
    file_seconds: Annotated[
        float | None, typer.Option(help="Most seconds to read a file: 60, of docling 600.", min=0.1)
    ] = None,
    file_mb: Annotated[
        float | None, typer.Option(help="Most memory (MB) to read a file: 1,074, of docling 17,180.", min=100)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read files and folders into the index; skip what is unchanged.

    With --sync the index equals the folders afterwards: files that are gone are removed, renamed
    ones are not encoded again.
    """
    from m3rag.errors import InputError
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.reading.readers import limits_of
    from m3rag.settings import load_settings

    if watch and dry_run:
        raise InputError("--watch and --dry-run do not go together; leave one out")
    options: IngestOptions = {
        "include": include or [],
        "exclude": exclude or [],
        "gitignore": gitignore,
        "password": _password(password_file),
        "dry_run": dry_run,
    }
    settings = load_settings(index=index, model=model, reader=reader)
    if file_seconds or file_mb:
        usual = limits_of(settings.reader)
        options["limits"] = replace(
            usual,
            seconds=file_seconds or usual.seconds,
            memory_bytes=_bytes(file_mb) if file_mb else usual.memory_bytes,
        )
    with KnowledgeBase(settings=settings) as kb:
        if watch:
            _watch(kb, paths, options, interval=interval, yes=yes, quiet=quiet, as_json=as_json)
            return
        report = run(kb, paths, options, sync=sync, yes=yes, quiet=quiet, as_json=as_json)
    if as_json:
        _print_report(kb, report)
    if report.count("failed"):
        raise typer.Exit(FOUND_PROBLEMS)


def run(
    kb: KnowledgeBase,
    paths: list[Path],
    options: IngestOptions | None = None,
    *,
    sync: bool = False,
    yes: bool = False,
    quiet: bool,
    as_json: bool,
    shown: tuple[str, ...] | None = None,
) -> IngestReport:
    """Ingest with a line a file on stdout and a progress bar on stderr; of all statuses, or of some."""
    dry_run = bool(options and options.get("dry_run"))
    bar = ProgressBar() if shows_progress(quiet=quiet, as_json=as_json) else None

    def on_result(result: FileResult) -> None:
        if not (as_json or quiet) and (shown is None or result.status in shown):
            (bar.print if bar else typer.echo)(_line(result, dry_run=dry_run))

    given: IngestOptions = {**(options or {}), "on_result": on_result, "on_progress": bar.update if bar else None}
    with bar or nullcontext():
        report = kb.sync(*paths, remove_most=yes, **given) if sync else kb.ingest(*paths, **given)
    if not as_json:
        _summarize(report, quiet=quiet, shown=shown)
    return report


def _watch(
    kb: KnowledgeBase,
    paths: list[Path],
    options: IngestOptions,
    *,
    interval: float,
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sync until Ctrl-C; between two syncs the index is free for others."""
    from m3rag.errors import IndexLockedError, InputError
    from m3rag.reading import Found
    from m3rag.sync import watch

    def find() -> Found:
        try:
            return kb.found(*paths, **options)
        except InputError:  # a folder that is not there now, which `changed` will say
            return Found((), ())

    waiting = False

    def changed() -> bool:
        nonlocal waiting
        try:
            report = run(
                kb, paths, options, sync=True, yes=yes, quiet=quiet, as_json=as_json, shown=SHOWN_WHILE_WATCHING
            )
        except IndexLockedError:
            if not waiting:
                note("another process has the index; trying until it is free")
            waiting = True
            return False
        except InputError as error:
            note(f"error: {error}")
            return True
        finally:
            kb.close()
        waiting = False
        if as_json:
            _print_report(kb, report)
        return True

    note(f"watching {', '.join(map(str, paths))} every {interval:g} s; Ctrl-C ends it")
    kb.found(*paths, **options)  # a path that is wrong from the start is an error, not a wait
    watch(find, changed, interval=interval)


def _print_report(kb: KnowledgeBase, report: IngestReport) -> None:
    value: dict[str, Any] = {
        "index": str(kb.place),
        "dry_run": report.dry_run,
        "counts": report.counts,
        "results": [asdict(result) for result in report.results],
        "skipped": [str(path) for path in report.skipped],
    }
    print_json("ingest", value)


def _summarize(report: IngestReport, *, quiet: bool, shown: tuple[str, ...] | None) -> None:
    counts = [f"{count} {status}" for status, count in report.counts.items() if count]
    if report.skipped:
        counts.append(f"{len(report.skipped)} of other formats or links passed over")
    summary = ", ".join(counts) or "nothing to do"
    note(f"nothing was done; would be: {summary}" if report.dry_run else summary)
    for result in report.results:
        if quiet and result.status == "failed":
            note(f"failed {in_line(str(result.path))}: {in_line(result.message)}")


def _line(result: FileResult, *, dry_run: bool = False) -> str:
    # In a dry run, what was not read has no chunks yet.
    told = result.status not in ("failed", "removed") and (result.chunks or not dry_run)
    chunks = f"  {counted(result.chunks, 'chunk')}" if told else ""
    if result.status == "updated" and result.chunks:
        chunks += f", {result.encoded} encoded"
    was = f"  (was {result.was})" if result.was else ""
    message = f"  ({result.message})" if result.message else ""
    return in_line(f"{result.status:<9} {result.document_id or result.path}{was}{chunks}{message}")


def _bytes(megabytes: float) -> int:
    from m3rag.errors import InputError

    if not isfinite(megabytes):
        raise InputError(f"--file-mb {megabytes} is no number of megabytes; give one such as 2048")
    return int(megabytes * 1e6)


def _password(path: Path | None) -> str | None:
    from m3rag.errors import InputError

    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the password file could not be read ({error}); give a text file in UTF-8") from error
    if not lines or not lines[0]:
        raise InputError(f"{path}: the password file has no password in its first line")
    return lines[0]
