"""How `m3rag ingest` shows on a terminal where it stands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from m3rag.ingest import Progress


class ProgressBar:
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

    def __enter__(self) -> ProgressBar:
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
        """Show how far it is."""
        self._bars.update(self._files, completed=progress.file - 1, total=progress.files)
        self._bars.update(
            self._chunks, completed=progress.done, total=progress.chunks or None, description=progress.path.name[:40]
        )
