"""How far a run of training is, for people."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from m3rag.cli.console import note, shows_progress

if TYPE_CHECKING:
    from m3rag.training.run import Report


def line_of(report: Report) -> str:
    """Where a run stands, for people."""
    text = f"step {report.step}/{report.steps}"
    for title, values in (("loss", report.loss), ("held-out nDCG@10", report.held_out)):
        if values:
            text += f"  {title}: " + " ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"{text}  {report.seconds:.0f} s"


def display(*, quiet: bool, as_json: bool) -> AbstractContextManager[Nothing]:
    """A bar on a terminal, twenty lines where there is none, nothing if told so."""
    if shows_progress(quiet=quiet, as_json=as_json):
        return Bar()
    return nullcontext(Nothing() if quiet or as_json else Lines())


class Nothing:
    """Shows nothing."""

    def prepare(self, done: int, total: int) -> None:
        """Texts that the frozen backbone was run over."""

    def report(self, report: Report) -> None:
        """Where the run stands."""


class Lines(Nothing):
    """About twenty lines of each stage, for a log."""

    def __init__(self) -> None:
        self._last = 0

    def prepare(self, done: int, total: int) -> None:
        if done == total or done - self._last >= total / 20:
            note(f"the frozen backbone: {done} of {total} texts")
            self._last = done

    def report(self, report: Report) -> None:
        if report.held_out or report.step % max(report.steps // 20, 1) == 0:
            note(line_of(report))


class Bar(Nothing):
    """A bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bars = Progress(
            console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task: Any = self._bars.add_task("loading", total=None)

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def prepare(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total, description="frozen backbone")

    def report(self, report: Report) -> None:
        loss = f"loss {report.loss['total']:.3f}" if report.loss else "training"
        self._bars.update(self._task, completed=report.step, total=report.steps, description=loss)
        if report.held_out:
            self._bars.console.print(line_of(report), markup=False, highlight=False, soft_wrap=True)
