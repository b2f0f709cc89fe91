"""`m3rag encode`: a large corpus into Parquet files of its three representations, through Ray Data."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from m3rag.cli.console import command, note, print_json, shows_progress
from m3rag.cli.options import Debug, Json, Quiet, path_of


@command
def encode(
    input: Annotated[
        Path,
        typer.Argument(
            parser=path_of, metavar="INPUT", help="A .jsonl or .parquet file, or a folder of them.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder, or that of the run to finish.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="M3RAG_MODEL",
            help="mini, BAAI/bge-m3 or a checkpoint folder.",
            show_default="mini",
        ),
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field or column of the text.")] = "text",
    id_field: Annotated[str, typer.Option(help="The field or column of the id.")] = "id",
    role: Annotated[Literal["query", "document"], typer.Option(help="What the texts are.")] = "document",
    max_length: Annotated[
        int | None,
        typer.Option(
            envvar="M3RAG_MAX_LENGTH", help="Tokens beyond which a text is cut.", show_default="the model's limit"
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Encoders at work at once.", show_default="one a GPU, or one a machine without"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode a corpus into Parquet files.

    The same command finishes a run that was stopped.
    """
    from m3rag.bulk import encode_corpus
    from m3rag.settings import load_settings

    settings = load_settings(model=model, max_length=max_length)
    bar = _ProgressBar() if shows_progress(quiet=quiet, as_json=as_json) else None
    with bar or nullcontext():
        report = encode_corpus(
            input,
            out,
            model=settings.model or "mini",
            text_field=text_field,
            id_field=id_field,
            role=role,
            max_length=settings.max_length,
            concurrency=concurrency,
            progress=bar.update if bar else None,
        )
    if as_json:
        print_json("encode", {"out": str(out), **asdict(report)})
    elif not quiet:
        kept = f", {report.kept} of them from an earlier run" if report.kept else ""
        cut = f"; {report.cut} texts were cut to the most tokens a text may have" if report.cut else ""
        note(f"{report.texts} texts in {report.shards} shards{kept}: {out}{cut}")


class _ProgressBar:
    """A bar over the texts, with the time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._texts = self._bars.add_task("texts", total=None)

    def __enter__(self) -> _ProgressBar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, finished: int, texts: int) -> None:
        self._bars.update(self._texts, completed=finished, total=texts)
