"""Bars over the stages of what takes long, on stderr."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from m3rag.cli.console import shows_progress

StageProgress = Callable[[str, int, int], None]


def stage_bars(*, quiet: bool, as_json: bool) -> AbstractContextManager[StageProgress | None]:
    """A context that gives a callback (stage, done, of all), one bar a stage; None where none may be drawn."""
    return _Bars() if shows_progress(quiet=quiet, as_json=as_json) else nullcontext(None)


def of_stage(progress: StageProgress | None, stage: str) -> Callable[[int, int], None] | None:
    """The callback of one stage."""
    return None if progress is None else partial(progress, stage)


class _Bars:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bars = Progress(
            console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done)
