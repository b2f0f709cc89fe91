"""`m3rag tune`: the weights of the three legs, learned on labelled questions and kept in the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, note, print_json
from m3rag.cli.options import Debug, Index, Json, Model, Quiet, path_of
from m3rag.cli.stages import stage_bars

if TYPE_CHECKING:
    from m3rag.evaluation.labelled import LabelledQuestion
    from m3rag.evaluation.tune import Progress, TuneResult
    from m3rag.evaluation.tune_interval import Interval
    from m3rag.knowledge_base import KnowledgeBase


@command
def tune(
    questions: Annotated[
        Path | None,
        typer.Argument(
            parser=path_of,
            metavar="DATA",
            help='A file of {"query": "...", "relevant": ["document"]} a line, or a folder in BEIR\'s form.',
            show_default=False,
        ),
    ] = None,
    index: Index = None,
    model: Model = None,
    metric: Annotated[
        str, typer.Option(help="What to learn for: ndcg, recall, mrr, map or hit, and a cut-off.")
    ] = "ndcg@10",
    split: Annotated[
        str | None, typer.Option(help="Which judgements of a folder: qrels/SPLIT.tsv.", show_default="train")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=30, help="Parts of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and of the interval.")] = 0,
    reranker: Annotated[
        str | None, typer.Option(help="A cross-encoder (hub id or folder) or colbert, to learn whether it helps.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out what is not in the index, instead of refusing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write the weights even if they do not help.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Forget the weights learned before.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn the weights of the legs on labelled questions.

    They are written into the index if they help.
    """
    from m3rag.errors import InputError
    from m3rag.evaluation.labelled import load_labelled
    from m3rag.evaluation.metrics import parse_metric
    from m3rag.evaluation.tune import require_enough
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    if (questions is None) != reset or (dry_run and force):
        raise InputError("give labelled questions, or --reset alone; and one of --dry-run and --force at most")
    if split is not None and questions is not None and questions.is_file():
        raise InputError(f"--split is of a folder in BEIR's form, and {questions} is a file: leave it out")
    parse_metric(metric)
    settings = load_settings(index=index, model=model)
    with KnowledgeBase(settings=settings) as kb:
        if questions is None:
            _forget(kb, as_json=as_json)
            return
        labelled = load_labelled(questions, split=split or "train", absent=skip_missing)
        require_enough(labelled)  # before a model is loaded
        with stage_bars(quiet=quiet, as_json=as_json) as progress:
            result = _learn(kb, labelled, reranker, progress, metric=metric, folds=folds, seed=seed, skip=skip_missing)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        found = result.settings(date=now, force=force, reranker=_from_anywhere(reranker or ""))
        before = kb.store.settings
        if found and not dry_run:
            kb.store.update_settings(found)
    if as_json:
        print_json("tune", {"index": str(kb.place), **_as_dict(result), "written": {} if dry_run else found})
    else:
        _print(result)
        typer.echo(_what_was_done(result, before, found, dry_run=dry_run))
    if "weights" in found and not dry_run and "weights" in settings.model_fields_set:
        note(f"your settings name weights ({settings.weights}), and go before those of the index: remove them there")
    if result.verdict == "too few" and not force:
        raise typer.Exit(FOUND_PROBLEMS)


def _learn(
    kb: KnowledgeBase,
    labelled: Sequence[LabelledQuestion],
    model: str | None,
    progress: Progress | None,
    *,
    skip: bool,
    **options: Any,
) -> TuneResult:
    from m3rag.evaluation.tune import tune as learn
    from m3rag.reranking.named import reranker_named
    from m3rag.retrieval import HybridRetriever

    store = kb.store  # before the encoder: a missing index should not cost loading a model
    retriever = HybridRetriever(kb.encoder, store)
    reranker = reranker_named(model, kb.encoder, store)
    return learn(retriever, labelled, reranker=reranker, skip_missing=skip, progress=progress, **options)


def _from_anywhere(reranker: str) -> str:
    """A reranker's name as the index is to keep it: searches are made from other folders."""
    from m3rag.reranking.named import COLBERT

    folder = Path(reranker).expanduser()
    return str(folder.absolute()) if reranker and reranker != COLBERT and folder.is_dir() else reranker


def _forget(kb: KnowledgeBase, *, as_json: bool) -> None:
    before = kb.store.settings.get("weights")
    kb.store.update_settings({"weights": None, "tuned": None, "rerank": None})
    if as_json:
        print_json("tune", {"index": str(kb.place), "forgotten": before})
    else:
        typer.echo(f"forgot the weights {before}" if before else "there were no learned weights")


def _as_dict(result: TuneResult) -> dict[str, Any]:
    from m3rag.evaluation.tune import text_of

    shown = {key: value for key, value in asdict(result).items() if key not in ("learned", "default", "folds")}
    folds = [{**asdict(fold), "weights": text_of(fold.weights)} for fold in result.folds]
    named = {name: text_of(getattr(result, name)) for name in ("weights", "learned", "default")}
    return {**named, **shown, "folds": folds}


def _print(result: TuneResult) -> None:
    """A row for each preset, each leg and what was learned, then what that is worth."""
    from m3rag.evaluation.tune import text_of

    typer.echo(f"{'weights':<24}{result.metric:>10}")
    for name, value in result.baselines.items():
        typer.echo(f"{name:<24}{value:>10.4f}")
    typer.echo(f"{'learned, held out':<24}{result.score:>10.4f}   {text_of(result.learned)}")
    parts = f"{result.questions} questions, {len(result.folds)} folds"
    typer.echo(f"gain over {text_of(result.default)}: {_interval(result.gain)}, {parts}")
    if result.rerank_gain is not None:
        typer.echo(f"gain by reranking: {_interval(result.rerank_gain)}: {'rerank' if result.rerank else 'do not'}")
    if result.skipped:
        note(f"{len(result.skipped)} questions were left out, since nothing relevant to them is in the index")


def _what_was_done(result: TuneResult, before: Mapping[str, Any], found: Mapping[str, Any], *, dry_run: bool) -> str:
    from m3rag.evaluation.tune import WORTHWHILE

    old = before.get("weights")
    if "weights" in found:
        done = "not written (--dry-run)" if dry_run else "written"
        return f"{done}: weights {found['weights']}" + (f", before {old}" if old else "")
    why = "the learned weights do not help"
    if result.verdict == "too few":
        why = (
            f"too few questions to tell whether the learned weights help: about {result.needed} are needed to tell "
            f"a gain of {WORTHWHILE} from none"
        )
    kept = f"; the index keeps {old}, which `m3rag tune --reset` forgets" if old else ""
    return f"no weights written: {why}{kept}"


def _interval(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] ({interval.level:.0%})"
