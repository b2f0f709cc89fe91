"""`m3rag train`: a model of one's own, from questions with passages that answer them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import command, note, print_json, shows_progress
from m3rag.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from m3rag.training.trainer import Report


@command
def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help='A .jsonl file, or a folder of them: {"query": "..", "pos": [".."], "neg": [".."]} a line.',
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the trained model; it must not be there yet.")],
    base: Annotated[str, typer.Option(help="What to start from: mini, BAAI/bge-m3 or a checkpoint folder.")] = "mini",
    heads_only: Annotated[bool, typer.Option("--heads-only", help="Train both heads; minutes on a CPU.")] = False,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train deltas of low rank on the backbone, and the heads.")
    ] = False,
    colbert_dim: Annotated[
        int | None,
        typer.Option(help="Start both heads anew, token vectors this long.", show_default="the base's heads"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the examples.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Most questions of a step.")] = 48,
    max_batch_tokens: Annotated[int, typer.Option(help="Most tokens of a step.")] = 65_536,
    sub_batch_tokens: Annotated[int, typer.Option(help="Most tokens in memory at once; changes no number.")] = 8192,
    negatives: Annotated[int, typer.Option(help="Hard negatives of a question in a step.")] = 2,
    per_source: Annotated[
        int | None, typer.Option(help="At most so many examples of each file.", show_default="all")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Questions of each file to measure on instead of learning from.")] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest.", show_default="1e-5 all, 1e-4 --lora, 1e-3 --heads-only")
    ] = None,
    temperature: Annotated[float, typer.Option(help="The scores are divided by it.")] = 0.02,
    loss: Annotated[str, typer.Option(help="infonce, mnr (both directions) or triplet.")] = "infonce",
    distill: Annotated[bool, typer.Option(help="Each leg also learns from the sum of all three.")] = True,
    teacher: Annotated[bool, typer.Option("--teacher", help="Also learn from pos_scores and neg_scores.")] = False,
    lora_rank: Annotated[int, typer.Option(help="Of the deltas.")] = 8,
    dropout: Annotated[float, typer.Option(help="On the backbone's states.")] = 0.0,
    query_length: Annotated[
        int | None, typer.Option(help="Most tokens of a question.", show_default="the model's")
    ] = None,
    passage_length: Annotated[
        int | None, typer.Option(help="Most tokens of a passage.", show_default="the model's")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="As torch names it.", show_default="a GPU if there is one")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between two saved states.")] = 200,
    evaluate_every: Annotated[int, typer.Option(help="Steps between two measurements; 0: first and last.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train the three legs of a model. Started again after a kill it goes on where it was."""
    from m3rag.errors import InputError
    from m3rag.training.settings import Method, TrainingSettings
    from m3rag.training.trainer import train as run
    from m3rag.training.workers import workers

    if heads_only and lora:
        raise InputError("--heads-only and --lora: give one of them at most")
    method: Method = "heads" if heads_only else "lora" if lora else "full"
    settings = TrainingSettings(
        method=method,
        colbert_dim=colbert_dim,
        epochs=epochs,
        batch_size=batch_size,
        max_batch_tokens=max_batch_tokens,
        sub_batch_tokens=sub_batch_tokens,
        negatives=negatives,
        per_source=per_source,
        held_out=held_out,
        learning_rate=learning_rate,
        temperature=temperature,
        loss=loss,  # type: ignore[arg-type] # the settings refuse what is none
        distill=distill,
        teacher=teacher,
        lora_rank=lora_rank,
        dropout=dropout,
        query_length=query_length,
        passage_length=passage_length,
        precision=precision,  # type: ignore[arg-type]
        seed=seed,
        save_every=save_every,
        evaluate_every=evaluate_every,
    )
    reports: list[Report] = []
    with workers(device) as (is_first, where), _display(quiet=quiet or not is_first, as_json=as_json) as show:

        def told(report: Report) -> None:
            if report.held_out:
                reports.append(report)
            show.report(report)

        run(data, base, out, settings=settings, device=where, on_progress=told, on_prepare=show.prepare)
    if is_first:
        _print(out, reports, as_json=as_json)


def _print(out: Path, reports: list[Report], *, as_json: bool) -> None:
    if as_json:
        measured = [{"step": report.step, **(report.held_out or {})} for report in reports]
        print_json("train", {"model": str(out), "held_out_ndcg@10": measured})
        return
    if reports:
        typer.echo("nDCG@10 held out  " + "  ".join(f"{leg:>7}" for leg in reports[0].held_out or {}))
    for report in reports:
        typer.echo(
            f"step {report.step:<11}  " + "  ".join(f"{value:7.4f}" for value in (report.held_out or {}).values())
        )
    typer.echo(f"the model is in {out}: use it with --model {out}")


def line_of(report: Report) -> str:
    """Where a run stands, for people."""
    text = f"step {report.step}/{report.steps}"
    for title, values in (("loss", report.loss), ("held-out nDCG@10", report.held_out)):
        if values:
            text += f"  {title}: " + " ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"{text}  {report.seconds:.0f} s"


def _display(*, quiet: bool, as_json: bool) -> AbstractContextManager[_Nothing]:
    """A bar on a terminal, twenty lines where there is none, nothing if told so."""
    if shows_progress(quiet=quiet, as_json=as_json):
        return _Bar()
    return nullcontext(_Nothing() if quiet or as_json else _Lines())


class _Nothing:
    """Shows nothing."""

    def prepare(self, done: int, total: int) -> None:
        """Texts that the frozen backbone was run over."""

    def report(self, report: Report) -> None:
        """Where the run stands."""


class _Lines(_Nothing):
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


class _Bar(_Nothing):
    """A bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bars = Progress(
            console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task: Any = self._bars.add_task("loading", total=None)

    def __enter__(self) -> _Bar:
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
