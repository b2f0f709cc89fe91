"""`m3rag ingest`: files and folders into the index."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, note, print_json, printable, shows_progress
from m3rag.cli.options import Debug, Index, Json, Model, Quiet

if TYPE_CHECKING:
    from m3rag.ingest import FileResult, IngestReport, Progress
    from m3rag.knowledge_base import KnowledgeBase


@command
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
    index: Index = None,
    model: Model = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read files and folders into the index; unchanged files cost nothing."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index, model=model)) as kb:
        report = run(kb, paths, quiet=quiet, as_json=as_json)
    if as_json:
        print_json(
            "ingest",
            {
                "index": str(kb.place),
                "results": [asdict(result) for result in report.results],
                "skipped": [str(path) for path in report.skipped],
            },
        )
    if report.count("failed"):
        raise typer.Exit(FOUND_PROBLEMS)


def run(kb: KnowledgeBase, paths: list[Path], *, quiet: bool, as_json: bool) -> IngestReport:
    """Ingest with a line a file on stdout and a progress bar on stderr."""
    bar = _ProgressBar() if shows_progress(quiet=quiet, as_json=as_json) else None

    def on_result(result: FileResult) -> None:
        if not (as_json or quiet):
            (bar.print if bar else typer.echo)(_line(result))

    with bar or nullcontext():
        report = kb.ingest(*paths, on_result=on_result, on_progress=bar.update if bar else None)
    if not as_json:
        counts = [f"{report.count(s)} {s}" for s in ("added", "updated", "unchanged", "failed") if report.count(s)]
        note(", ".join(counts) + (f", {len(report.skipped)} of other formats passed over" if report.skipped else ""))
        for result in report.results:
            if quiet and result.status == "failed":
                note(f"failed {result.path}: {result.message}")
    return report


def _line(result: FileResult) -> str:
    chunks = f"  {result.chunks} chunks" if result.status != "failed" else ""
    message = f"  ({result.message})" if result.message else ""
    return printable(f"{result.status:<9} {result.document_id or result.path}{chunks}{message}")


class _ProgressBar:
    """A bar over the files, with the chunks of the current one, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            # stdout is for data, which may go to a file while this is drawn on the terminal.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._files = self._bars.add_task("files", total=None)
        self._chunks = self._bars.add_task("chunks", total=None)

    def __enter__(self) -> _ProgressBar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def print(self, line: str) -> None:
        """Print a line of data: above the bar where both are on one terminal, else to stdout."""
        if sys.stdout.isatty():
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line)

    def update(self, progress: Progress) -> None:
        self._bars.update(self._files, completed=progress.file - 1, total=progress.files)
        self._bars.update(
            self._chunks, completed=progress.done, total=progress.chunks or None, description=progress.path.name[:40]
        )
