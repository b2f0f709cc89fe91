"""`m3rag mine`: hard negatives for training data, found by our own search."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.console import command, note, print_json, shows_progress
from m3rag.cli.options import Debug, Json, Model, Quiet, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3rag.collection import Collection
    from m3rag.encoder.protocol import Encoder

AT_ONCE = 1024
"""Passages of a corpus read and written together."""


@command
def mine(
    data: Annotated[
        Path,
        typer.Argument(
            parser=path_of,
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
    teacher_margin: Annotated[
        float | None, typer.Option(help="With --teacher: the margin by its scores.", show_default="0")
    ] = None,
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
    from m3rag.training.mining_files import mine_files
    from m3rag.training.saving import require_free

    if index is not None and corpus is not None:
        raise InputError("--index and --corpus: give one of them at most")
    if teacher is None and teacher_margin is not None:
        raise InputError("--teacher-margin has no part without --teacher: leave it out")
    wanted = MiningSettings(
        negatives=negatives,
        first=first,
        last=last,
        mode=mode,
        share=share or None,
        margin=margin,
        teacher_margin=teacher_margin or 0.0,
        random=random,
        keep=keep,
        seed=seed,
    )
    require_free(out, as_file=not data.is_dir())  # before a corpus is encoded for nothing
    show = shows_progress(quiet=quiet, as_json=as_json)
    opened = _made(data, corpus, model, out) if index is None else _opened(index, model)
    with opened as collection, _bar(show) as progress:
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


def _opened(index: str, model: str | None) -> AbstractContextManager[Collection]:
    from m3rag.collection import Collection
    from m3rag.settings import load_settings

    return Collection(settings=load_settings(index=index, model=model))


@contextmanager
def _made(data: Path, corpus: Path | None, model: str | None, out: Path) -> Iterator[Collection]:
    """An index of the passages, in `OUT.mining.index` until the run is done: one that was killed goes on with it."""
    from m3rag.collection import Collection
    from m3rag.errors import InputError
    from m3rag.settings import load_settings
    from m3rag.training.data import training_files
    from m3rag.training.mining_files import corpus_file, own_passages, read_corpus

    files = training_files(data) if corpus is None else [corpus_file(corpus)]
    passages = own_passages(data) if corpus is None else read_corpus(corpus)
    part = list(islice(passages, AT_ONCE))
    if not part:
        raise InputError("there are no passages to search: give --corpus or --index")
    settings = load_settings(model=model)
    with Collection(":memory:", settings=settings) as loading:
        encoder = loading.encoder
    place = out.with_name(f"{out.name}.mining.index")
    place.mkdir(parents=True, exist_ok=True)
    with Collection(place / _name(encoder, files), encoder=encoder, settings=settings) as collection:
        while part:
            known = {(chunk.id, chunk.text) for chunk in collection.get([chunk.id for chunk in part])}
            collection.upsert([chunk for chunk in part if (chunk.id, chunk.text) not in known])
            part = list(islice(passages, AT_ONCE))
        yield collection
    shutil.rmtree(place)


def _name(encoder: Encoder, files: Sequence[Path]) -> str:
    """Another one for another model or other passages: what was made of those would be found too."""
    from hashlib import file_digest, sha256

    digest = sha256(f"{encoder.info.fingerprint} {encoder.max_length}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


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
