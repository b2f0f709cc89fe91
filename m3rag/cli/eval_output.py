"""How `m3rag eval` shows a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from m3rag.evaluation.comparing import Difference
    from m3rag.evaluation.report import Report

ANSWER_LINES = (
    ("answerable questions", ("exact_match", "f1", "holds")),
    ("all questions, as in SQuAD 2.0", ("f1_all",)),
    ("refusals", ("refusal_precision", "refusal_recall", "refusal_f1")),
    ("citations", ("citation_precision", "citation_recall")),
)


def print_report(report: Report, differences: Sequence[Difference]) -> None:
    """A row a system, then the languages, the answers and what changed."""
    if report.systems:
        _table(
            ["", *_metrics(report), "p50 ms", "p95 ms"],
            [
                [name, *map(_share, of["metrics"].values()), *_milliseconds(of["latency_ms"])]
                for name, of in report.systems.items()
            ],
        )
        _print_languages(report)
    if report.answers is not None:
        _print_answers(report.answers)
    if differences:
        level = differences[0].interval.level
        typer.echo(f"\nchange from the baseline, with the {level:.0%} interval of a paired bootstrap")
        _table(
            ["", "metric", "change", "low", "high", "questions"],
            [
                [d.system, d.metric, *(f"{v:+.4f}" for v in (d.interval.mean, d.interval.low, d.interval.high)),
                 str(d.questions)]
                for d in differences
            ],
        )  # fmt: skip


def _print_languages(report: Report) -> None:
    langs = sorted({lang for of in report.systems.values() for lang in of["languages"]})
    if len(langs) < 2:
        return
    metric = _metrics(report)[0]
    typer.echo(f"\n{metric} by language")
    rows = [
        [name, *(_share(of["languages"].get(lang, {}).get(metric)) for lang in langs)]
        for name, of in report.systems.items()
    ]
    _table(["", *langs], rows)


def _print_answers(answers: Mapping[str, Any]) -> None:
    typer.echo(f"\nanswers to {answers['questions']} questions, {answers['answerable']} of them answerable")
    for label, names in ANSWER_LINES:
        typer.echo(f"{label:<32}" + "   ".join(f"{name} {_share(answers[name])}" for name in names))
    p50, p95 = _milliseconds(answers["latency_ms"])
    typer.echo(f"{'milliseconds':<32}p50 {p50}   p95 {p95}")
    for lang, of in answers["languages"].items() if len(answers["languages"]) > 1 else ():
        typer.echo(f"{lang:<32}f1 {_share(of['f1'])}   refusal_f1 {_share(of['refusal_f1'])}")


def _metrics(report: Report) -> list[str]:
    return list(next(iter(report.systems.values()))["metrics"])


def _milliseconds(latency: Mapping[str, float]) -> list[str]:
    return [f"{latency[name]:.1f}" if name in latency else "-" for name in ("p50", "p95")]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns of the width of what is in them, the first to the left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        typer.echo("  ".join(cells).rstrip())
