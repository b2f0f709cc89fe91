"""`m3rag mine`: hard negatives for training data, found by our own search."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.console import command, note, print_json, shows_progress
from m3rag.cli.options import Debug, Json, Model, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3rag.collection import Collection
    from m3rag.types import Chunk

AT_ONCE = 1024
"""Passages of a corpus read and written together."""


@command
def mine(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help='A .jsonl file, or a folder of them: {"query": "..", "pos": [".."]} a line, "answers" if known.',
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new file, or a new folder with files of the same names.")],
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            help="Search this index: a folder, http://HOST:6333/COLLECTION (Qdrant) or chroma:FOLDER.",
            show_default="none: the passages of --corpus",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help='Search the passages of this file instead: {"_id", "title", "text"} a line.',
            show_default="all passages of DATA, unless --index is given",
        ),
    ] = None,
    model: Model = None,
    negatives: Annotated[int, typer.Option(help="Of each question at most.")] = 7,
    first: Annotated[int, typer.Option(help="The rank of the first passage that may be a negative.")] = 1,
    last: Annotated[int, typer.Option(help="The rank of the last.")] = 100,
    mode: Annotated[str, typer.Option(help="dense, lexical, colbert, dense+lexical or all.")] = "all",
    share: Annotated[
        float, typer.Option(help="A negative scores at most this part of the best positive; 0: no bound.")
    ] = 0.95,
    margin: Annotated[
        float | None, typer.Option(help="And at least so much less than it.", show_default="no bound")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A cross-encoder (hub id or folder) that judges too; its scores are kept.")
    ] = None,
    teacher_margin: Annotated[float, typer.Option(help="The margin by the teacher's scores.")] = 0.0,
    random: Annotated[bool, typer.Option("--random", help="Draw among the range, instead of the hardest.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the negatives that the data has.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find passages that look like an answer and are none. Started again after a kill it goes on where it was."""
    from m3rag.errors import InputError
    from m3rag.retrieval import HybridRetriever
    from m3rag.training.mining import MiningSettings
    from m3rag.training.mining_files import mine_files, own_passages, read_corpus
    from m3rag.training.saving import require_free

    if index is not None and corpus is not None:
        raise InputError("--index and --corpus: give one of them at most")
    wanted = MiningSettings(
        negatives=negatives,
        first=first,
        last=last,
        mode=mode,
        share=share or None,
        margin=margin,
        teacher_margin=teacher_margin,
        random=random,
        keep=keep,
        seed=seed,
    )
    require_free(out)  # before a corpus is encoded for nothing
    show = shows_progress(quiet=quiet, as_json=as_json)
    passages = None if index is not None else own_passages(data) if corpus is None else read_corpus(corpus)
    with _opened(index, model, passages) as collection, _bar(show) as progress:
        report = mine_files(
            data,
            out,
            HybridRetriever(collection.encoder, collection.store, weights=collection.settings.weights),
            settings=wanted,
            teacher=_teacher(teacher),
            teacher_name=teacher or "",
            on_progress=progress,
        )
    if as_json:
        print_json("mine", {"out": str(out), **asdict(report)})
    else:
        typer.echo(f"{report.negatives} negatives for {report.examples} questions in {out}")
    if report.without and not quiet:
        note(f"{report.without} questions have none: raise --last or --share, or search more passages")


@contextmanager
def _opened(index: str | None, model: str | None, passages: Iterable[Chunk] | None) -> Iterator[Collection]:
    """The index, or one made of passages for this run."""
    from m3rag.collection import Collection
    from m3rag.errors import InputError
    from m3rag.settings import load_settings

    if passages is None:
        with Collection(settings=load_settings(index=index, model=model)) as collection:
            yield collection
        return
    with (
        tempfile.TemporaryDirectory(prefix="m3rag-mine-") as folder,
        Collection(Path(folder) / "index", settings=load_settings(model=model)) as collection,
    ):
        part: list[Chunk] = []
        for chunk in passages:
            part.append(chunk)
            if len(part) == AT_ONCE:
                collection.upsert(part)
                part = []
        collection.upsert(part)
        if not collection.exists:
            raise InputError("there are no passages to search: give --corpus or --index")
        yield collection


def _teacher(name: str | None) -> Callable[..., object] | None:
    if name is None:
        return None
    from m3rag.reranking import CrossEncoderReranker

    return CrossEncoderReranker(name).compute_score


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[int, int], None] | None]:
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as bars:
        task = bars.add_task("questions", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
