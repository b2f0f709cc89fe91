"""`m3rag eval`: how well an index or a model finds and answers, on labelled questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, note, print_json
from m3rag.cli.eval_data import PAPER_CANDIDATES, PAPER_DEPTH, Data
from m3rag.cli.options import Debug, Index, Json, Model, Quiet, path_of
from m3rag.cli.stages import StageProgress, of_stage
from m3rag.types import MOST, ModelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m3rag.evaluation.comparing import Difference, Threshold
    from m3rag.evaluation.judging import JudgedAnswer
    from m3rag.evaluation.report import Report
    from m3rag.evaluation.searching import SearchRun, System
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.retrieval import HybridRetriever

DEFAULT_METRICS = ("ndcg@10", "recall@100", "mrr@10", "hit@1")


@command
def evaluate(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            parser=path_of,
            metavar="DATA",
            help="Questions, one JSON object a line, or a folder in BEIR's form, whose corpus is encoded.",
            show_default=False,
        ),
    ],
    index: Index = None,
    model: Model = None,
    corpus: Annotated[
        Path | None, typer.Option(help="A corpus.jsonl that the questions are about, instead of the index.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which judgements of a folder: qrels/SPLIT.tsv.", show_default="test")
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(help="With commas between.", show_default="dense,lexical,colbert,dense+lexical,all,bm25"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="ndcg, recall, mrr, map or hit with a cut-off.", show_default=" ".join(DEFAULT_METRICS)),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            envvar="M3RAG_WEIGHTS",
            help="miracl, mkqa, mldr, or dense/lexical/colbert such as 1/0.3/1.",
            show_default="learned, else miracl",
        ),
    ] = None,
    preset: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: the table of the M3 paper, with its weights and depths.")
    ] = None,
    reranker: Annotated[
        str | None, typer.Option(help="Also with a cross-encoder (hub id or folder), or `colbert`.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Also answer the questions, and judge the answers.")
    ] = False,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Chunks from each leg, whatever the metrics' cut-offs.",
            show_default="ten times the deepest cut-off, at least 1000; 1000 with --preset paper",
        ),
    ] = None,
    rerank_depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Chunks that get a ColBERT score in mode all, whatever the metrics' cut-offs.",
            show_default="as --candidates; 200 with --preset paper",
        ),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(min=8, help="Split longer passages of a corpus.", show_default="what the model takes"),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only as many questions, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and of the intervals.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder to keep encoded corpora in.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for run.json, TREC run files and the answers.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="The run.json of another run, to compare with.")] = None,
    fail_under: Annotated[
        list[str] | None, typer.Option(help="Exit with 1 below it: ndcg@10=0.8, dense:recall@100=0.9, answers:f1=0.4.")
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out what is not in the index or the corpus, instead of refusing."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure retrieval and answers on labelled questions."""
    from m3rag.cli.eval_data import (
        load_data,
        modes_of,
        opened,
        paper_systems,
        retriever_of,
        systems_of,
        with_vectors,
    )
    from m3rag.cli.stages import stage_bars
    from m3rag.evaluation.comparing import Threshold, require_same_data
    from m3rag.evaluation.corpus import take_corpus
    from m3rag.evaluation.metrics import parse_metric
    from m3rag.evaluation.report import load_report, require_writable
    from m3rag.settings import load_settings

    # What can be wrong with what was asked is said before anything is loaded or encoded.
    metrics = tuple(metric or (("ndcg@10", "recall@100") if preset else DEFAULT_METRICS))
    for name in metrics:
        parse_metric(name)
    chosen = None if modes is None else modes_of(modes)
    thresholds = [Threshold.parse(text) for text in fail_under or []]
    before = None if baseline is None else load_report(baseline)
    _check_options(data, corpus, preset, modes, reranker)
    _refuse_unused(context, data, corpus, split=split, chunk_tokens=chunk_tokens, cache=cache)
    for folder in (out, cache):
        if folder is not None:
            require_writable(folder.expanduser())
    found = load_data(data, corpus=corpus, split=split or "test", sample=sample, seed=seed, skip_missing=skip_missing)
    _require_labels(found, thresholds, answers=answers)
    if before is not None:
        require_same_data(found.hash, before)
    settings = load_settings(index=index, model=model, weights=weights)
    if preset:
        candidates, rerank_depth = candidates or PAPER_CANDIDATES, rerank_depth or PAPER_DEPTH
    with (
        stage_bars(quiet=quiet, as_json=as_json) as progress,
        opened(found, settings, cache=cache, chunk_tokens=chunk_tokens) as kb,
    ):
        systems = paper_systems(settings.weights) if preset else systems_of(kb, chosen, reranker)
        _require_usable(systems, kb.encoder.info)
        _require_figures(thresholds, systems, metrics, answers=answers)
        if found.corpus is not None:
            take_corpus(kb, found.corpus, chunk_tokens=chunk_tokens, progress=of_stage(progress, "corpus"))
        systems = [with_vectors(system, kb) for system in systems]
        retriever = retriever_of(kb, candidates=candidates, rerank_depth=rerank_depth)
        measuring = _Measuring(found, kb, retriever, metrics, out, progress, skip_missing=skip_missing)
        report = measuring.run(systems, answers=answers, preset=preset, seed=seed, chunk_tokens=chunk_tokens)
    try:
        _show(report, before, seed=seed, as_json=as_json)
    finally:  # a pipe that is closed costs no file, and a disk that is full not the figures
        measuring.write(report)
    wrong = [text for text in (threshold.failure(report) for threshold in thresholds) if text is not None]
    for text in wrong:
        note(f"below its threshold: {text}")
    if wrong:
        raise typer.Exit(FOUND_PROBLEMS)


def _check_options(
    data: Path, corpus: Path | None, preset: str | None, modes: str | None, reranker: str | None
) -> None:
    from m3rag.errors import InputError

    with_corpus = data.is_dir() or corpus is not None
    if preset and (modes or reranker or not with_corpus):
        raise InputError("--preset paper has its own modes, and needs a folder in BEIR's form (or --corpus)")


def _refuse_unused(
    context: typer.Context,
    data: Path,
    corpus: Path | None,
    *,
    split: str | None,
    chunk_tokens: int | None,
    cache: Path | None,
) -> None:
    """An option that nothing would come of is an error; the variable of one may be for other commands."""
    from m3rag.errors import InputError

    with_corpus = data.is_dir() or corpus is not None
    source = context.get_parameter_source("index")
    if cache is not None and not with_corpus:
        raise InputError("--cache keeps encoded corpora: give a folder in BEIR's form, or --corpus")
    if chunk_tokens is not None and not with_corpus:
        raise InputError("--chunk-tokens is of a corpus that is encoded, and those of an index are cut: leave it out")
    if split is not None and data.is_file():
        raise InputError(f"--split is of a folder in BEIR's form, and {data} is a file: leave it out")
    if with_corpus and source is not None and source.name == "COMMANDLINE":
        raise InputError("--index has no part where passages come with the questions: leave it out")


def _require_labels(data: Data, thresholds: Sequence[Threshold], *, answers: bool) -> None:
    """Refuse to measure what no question says anything of, before anything is loaded."""
    from m3rag.errors import InputError

    labelled = any(question.relevant for question in data.questions)
    wanted = next((threshold.metric for threshold in thresholds if threshold.system != "answers"), None)
    if wanted is not None and not labelled:
        raise InputError(
            f"--fail-under {wanted}: {data.path} says of no question what should be found ('relevant' or 'gold_ids'): "
            "name it, or hold a threshold against the answers, such as answers:refusal_f1=0.8"
        )
    if answers and not any(question.answers is not None for question in data.questions):
        raise InputError(f"{data.path} says of no question what a right answer is ('answers'): leave out --answers")
    if not answers and not labelled:
        raise InputError(
            f"{data.path} says of no question what should be found ('relevant' or 'gold_ids'): name it, or "
            "measure answers alone (--answers)"
        )


def _require_usable(systems: Sequence[System], model: ModelInfo) -> None:
    """What a search would refuse is said before hours of encoding."""
    from m3rag.retrieval.options import require_usable

    for system in systems:
        system.mode.check(model)
        require_usable({"mode": system.mode, "weights": system.weights})


def _require_figures(
    thresholds: Sequence[Threshold], systems: Sequence[System], metrics: Sequence[str], *, answers: bool
) -> None:
    """A threshold that nothing can be held against is said before hours of encoding."""
    from m3rag.evaluation.judging import FIGURES

    known = [f"{system.name}:{name}" for system in systems for name in metrics]
    for threshold in thresholds:
        threshold.figure([*known, *(f"answers:{name}" for name in FIGURES if answers)])


class _Measuring:
    """One evaluation; if it is interrupted, what was done is written, and marked as not all."""

    def __init__(
        self,
        data: Data,
        kb: KnowledgeBase,
        retriever: HybridRetriever,
        metrics: tuple[str, ...],
        out: Path | None,
        progress: StageProgress | None,
        *,
        skip_missing: bool,
    ) -> None:
        from m3rag.evaluation.metrics import parse_metric
        from m3rag.evaluation.searching import DEPTH, SearchRun

        self._data, self._kb, self._retriever = data, kb, retriever
        self._depth = max(DEPTH, *(parse_metric(name)[1] for name in metrics))
        self._metrics, self._out, self._progress, self._skip_missing = metrics, out, progress, skip_missing
        self._run: SearchRun = SearchRun()
        self._judged: list[JudgedAnswer] | None = None

    def run(self, systems: list[System], *, answers: bool, **options: Any) -> Report:
        self._judged = [] if answers else None
        named = {system.name: str(system.weights or self._kb.settings.weights) for system in systems}
        options = {**options, "weights": named}
        try:
            self._measure(systems)
        except KeyboardInterrupt:
            self.write(self._finish(options, complete=False))
            raise
        return self._finish(options, complete=True)

    def write(self, report: Report) -> None:
        if self._out is not None:
            report.write(self._out.expanduser(), self._run, self._judged)

    def _measure(self, systems: list[System]) -> None:
        from m3rag.errors import InputError
        from m3rag.evaluation.judging import judge_all
        from m3rag.evaluation.searching import search_all

        questions, store = self._data.questions, self._kb.store
        search_all(
            self._retriever,
            questions,
            systems,
            depth=self._depth,
            skip_missing=self._skip_missing,
            into=self._run,
            progress=of_stage(self._progress, "search"),
        )
        if self._judged is None and not self._run.qrels:
            raise InputError(
                f"no question of {self._data.path} was left to search for, since nothing relevant to them is in the "
                "index: `m3rag list` names the documents; mend the labels"
            )
        if self._judged is not None:
            judge_all(self._kb.ask, questions, store, into=self._judged, progress=of_stage(self._progress, "answers"))

    def _finish(self, options: dict[str, Any], *, complete: bool) -> Report:
        from m3rag.cli.eval_data import context_of
        from m3rag.evaluation.report import Report

        context = context_of(self._data, self._kb, self._retriever, self._depth, **options)
        context["skipped"] = self._run.skipped
        report = Report.of(
            self._run, self._judged, self._data.questions, metrics=self._metrics, context=context, complete=complete
        )
        if self._run.skipped:
            note(f"{len(self._run.skipped)} questions were left out, since nothing relevant to them is in the index")
        return report


def _show(report: Report, before: Report | None, *, seed: int, as_json: bool) -> None:
    from m3rag.evaluation.comparing import differences

    changes: list[Difference] = []
    try:
        changes = differences(report, before, seed=seed) if before else []
    finally:  # figures that cannot be compared are figures all the same
        _print(report, changes, as_json=as_json)


def _print(report: Report, changes: list[Difference], *, as_json: bool) -> None:
    from dataclasses import asdict

    from m3rag.cli.eval_output import print_report

    if not as_json:
        print_report(report, changes)
        return
    told = [{"system": c.system, "metric": c.metric, "questions": c.questions, **asdict(c.interval)} for c in changes]
    print_json("eval", {**report.as_dict(), **({"change": told} if told else {})})
