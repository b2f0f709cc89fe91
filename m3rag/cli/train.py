"""`m3rag train`: a model of one's own, from questions with passages that answer them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import command, print_json
from m3rag.cli.options import Debug, Json, Quiet, path_of
from m3rag.cli.train_progress import display

if TYPE_CHECKING:
    from m3rag.training.run import Report

NOT_OF_A_RERANKER = ("colbert_dim", "temperature", "loss", "distill", "passage_length", "merge")
"""Options that `--reranker` has no use for."""


@command
def train(
    data: Annotated[
        Path,
        typer.Argument(
            parser=path_of,
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
    reranker: Annotated[
        bool, typer.Option("--reranker", help="Train a cross-encoder instead: one score of question and passage.")
    ] = False,
    colbert_dim: Annotated[
        int | None,
        typer.Option(help="Start both heads anew, token vectors this long.", show_default="the base's heads"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the examples.")] = 1,
    batch_size: Annotated[
        int | None, typer.Option(help="Most questions of a step.", show_default="48; 16 with --reranker")
    ] = None,
    max_batch_tokens: Annotated[int, typer.Option(help="Most tokens of a step.")] = 65_536,
    sub_batch_tokens: Annotated[
        int, typer.Option(help="Most tokens in memory at once; changes no number where there is no --dropout.")
    ] = 8192,
    negatives: Annotated[
        int | None, typer.Option(help="Hard negatives of a question in a step.", show_default="2; 7 with --reranker")
    ] = None,
    per_source: Annotated[
        int | None, typer.Option(help="At most so many examples of each file.", show_default="all")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Questions of each file to measure on instead of learning from.")] = 0,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The highest.", show_default="1e-5 all, 1e-4 --lora, 1e-3 --heads-only; twice for a reranker"
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="The scores are divided by it.", show_default="0.02")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="infonce, mnr (both directions) or triplet.", show_default="infonce")
    ] = None,
    distill: Annotated[
        bool | None,
        typer.Option(
            "--distill/--no-distill", help="Each leg also learns from the sum of all three.", show_default="yes"
        ),
    ] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Also learn from pos_scores and neg_scores.")] = False,
    lora_rank: Annotated[int | None, typer.Option(help="With --lora: of the deltas.", show_default="8")] = None,
    lora_layers: Annotated[
        int | None,
        typer.Option(help="With --lora: deltas on the last so many layers only: faster.", show_default="on all"),
    ] = None,
    dropout: Annotated[float, typer.Option(help="On the backbone's states.")] = 0.0,
    query_length: Annotated[
        int | None, typer.Option(help="Most tokens of a question.", show_default="the model's")
    ] = None,
    passage_length: Annotated[
        int | None, typer.Option(help="Most tokens of a passage.", show_default="the model's")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="With --reranker: most tokens of question and passage.", show_default="512")
    ] = None,
    merge: Annotated[
        float | None,
        typer.Option(help="How far the backbone goes from the base's to the trained one.", show_default="1"),
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
    """Train the three legs of a model, or a reranker. Started again after a kill it goes on where it was."""
    from m3rag.training.workers import workers

    # Which of them apply, and what they are if not given, depends on what is trained.
    given = {
        "batch_size": batch_size, "negatives": negatives, "learning_rate": learning_rate, "colbert_dim": colbert_dim,
        "temperature": temperature, "loss": loss, "distill": distill, "query_length": query_length,
        "passage_length": passage_length, "max_length": max_length, "merge": merge, "lora_rank": lora_rank,
    }  # fmt: skip
    options: dict[str, Any] = {
        "method": _method(heads_only=heads_only, lora=lora, reranker=reranker),
        "epochs": epochs,
        "max_batch_tokens": max_batch_tokens,
        "sub_batch_tokens": sub_batch_tokens,
        "per_source": per_source,
        "held_out": held_out,
        "teacher": teacher,
        "lora_layers": lora_layers,
        "dropout": dropout,
        "precision": precision,
        "seed": seed,
        "save_every": save_every,
        "evaluate_every": evaluate_every,
        **_applicable(given, reranker=reranker, lora=lora),
    }
    reports: list[Report] = []
    with workers(device) as (is_first, where), display(quiet=quiet or not is_first, as_json=as_json) as show:

        def told(report: Report) -> None:
            if report.held_out:
                reports.append(report)
            show.report(report)

        if reranker:
            from m3rag.training import RerankerSettings, train_reranker

            train_reranker(data, base, out, settings=RerankerSettings(**options), device=where, on_progress=told)
        else:
            from m3rag.training import TrainingSettings
            from m3rag.training import train as train_model

            settings = TrainingSettings(**options)
            train_model(data, base, out, settings=settings, device=where, on_progress=told, on_prepare=show.prepare)
    if is_first:
        _print(out, reports, as_json=as_json, option="--reranker" if reranker else "--model")


def _method(*, heads_only: bool, lora: bool, reranker: bool) -> str:
    from m3rag.errors import InputError

    if heads_only and (lora or reranker):
        raise InputError(f"--heads-only and {'--lora' if lora else '--reranker'}: give one of them at most")
    return "heads" if heads_only else "lora" if lora else "full"


def _applicable(given: dict[str, Any], *, reranker: bool, lora: bool) -> dict[str, Any]:
    """The options that were given; one that what is trained has no use for is an error."""
    from m3rag.errors import InputError

    unused = dict.fromkeys(NOT_OF_A_RERANKER, "has no part in a reranker") if reranker else {}
    unused |= {} if reranker else {"max_length": "is of a reranker alone"}
    unused |= {} if lora else {"lora_rank": "has no part without --lora"}
    found = {name: value for name, value in given.items() if value is not None}
    for name, told in unused.items():
        if name in found:
            raise InputError(f"--{name.replace('_', '-')} {told}: leave it out")
    return found


def _print(out: Path, reports: list[Report], *, as_json: bool, option: str) -> None:
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
    typer.echo(f"the model is in {out}: use it with {option} {out}")
