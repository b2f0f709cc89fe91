"""What searches of an index find for labelled questions, and how long they take, one system beside another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from m3rag.errors import InputError
from m3rag.evaluation.labelled import Judgements, Level, judgements, unit_of
from m3rag.evaluation.metrics import as_ranked
from m3rag.evaluation.questions import EvalQuestion
from m3rag.output import M3Output
from m3rag.reranking.protocol import Reranker
from m3rag.retrieval import HybridRetriever, Mode, SearchOptions
from m3rag.scoring import Weights
from m3rag.types import Hit

DEPTH = 100
"""How many documents (or pages, or chunks) of a question a run keeps."""

CHUNKS_PER_PAGE = 4
"""How many chunks are searched for each page wanted, since several may be of one page."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way to search, a row of the table.

    Attributes:
        name: Unique in a table.
        mode: Which legs.
        weights: Of the legs; the retriever's if None.
        reranker: Orders the best anew; the others follow behind in their order.
        rerank_top: How many it is given.
    """

    name: str
    mode: Mode
    weights: Weights | str | None = None
    reranker: Reranker | None = None
    rerank_top: int = 50

    @classmethod
    def of(cls, mode: Mode | str) -> System:
        """A mode as the retriever has it."""
        return cls(name=Mode.parse(mode).value, mode=Mode.parse(mode))


@dataclass
class SearchRun:
    """What was found so far; a question is in it for all systems or for none.

    Attributes:
        qrels: Question id to unit to gain, of the questions done. A unit is a document's id, a chunk's, or
            `document#page=3`.
        runs: System to question id to unit to score, best first and no two of them equal, so that a run file
            means the order of the search and no other.
        seconds: System to question id to seconds, the encoding of the question included.
        skipped: Ids of the questions of which nothing relevant is in the index.
    """

    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    runs: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def search_all(
    retriever: HybridRetriever,
    questions: Sequence[EvalQuestion],
    systems: Sequence[System],
    *,
    depth: int = DEPTH,
    skip_missing: bool = False,
    into: SearchRun | None = None,
    progress: Progress | None = None,
) -> SearchRun:
    """Ask every system every question that something answers.

    Args:
        retriever: Where to search; with the BM25 leg if a system needs it.
        questions: Those without anything relevant are left out.
        systems: The ways to search.
        depth: How many documents, pages or chunks to find, whichever the question's labels are about. A
            document or page stands where its best chunk does.
        skip_missing: Leave out what is not in the index, and questions of which nothing is left.
        into: Filled as questions are done, so that whoever interrupts this has what was done.
        progress: Called with the number of questions done and of all.

    Raises:
        InputError: If a question calls something relevant that is not in the index and `skip_missing` is
            not set, before anything is encoded.
        ConfigurationError: If a mode needs a leg that is not there.
    """
    run = SearchRun() if into is None else into
    for system in systems:
        run.runs.setdefault(system.name, {})
        run.seconds.setdefault(system.name, {})
    kept = _judged(retriever, questions, run, skip_missing=skip_missing)
    if kept:
        _ask(retriever, kept[0][0], kept[0][1].level, systems, 1)  # what is loaded on first use is nobody's time
    for number, (question, judged) in enumerate(kept, start=1):
        found = _ask(retriever, question, judged.level, systems, depth)
        run.qrels[question.id] = {_name(unit): gain for unit, gain in judged.gains.items()}
        for system, (ranking, seconds) in zip(systems, found, strict=True):
            run.runs[system.name][question.id] = ranking
            run.seconds[system.name][question.id] = seconds
        if progress:
            progress(number, len(kept))
    return run


def _judged(
    retriever: HybridRetriever, questions: Sequence[EvalQuestion], run: SearchRun, *, skip_missing: bool
) -> list[tuple[EvalQuestion, Judgements]]:
    asked = [(q, judgements(q.labelled, retriever.store)) for q in questions if q.relevant]
    missing = [(q, judged.missing) for q, judged in asked if judged.missing]
    if missing and not skip_missing:
        shown = "; ".join(f"{q.id}: {', '.join(what[:3])}" for q, what in missing[:3])
        raise InputError(
            f"{len(missing)} of {len(asked)} questions call something relevant that is not in the index "
            f"({shown}{'; ...' if len(missing) > 3 else ''}): `m3rag list` names the documents; mend the labels, give "
            "the passages that the questions are about (--corpus), or skip what is missing (skip_missing=True, "
            "--skip-missing)"
        )
    run.skipped += [q.id for q, judged in asked if not judged.gains]
    return [(q, judged) for q, judged in asked if judged.gains]


def _ask(
    retriever: HybridRetriever, question: EvalQuestion, level: Level, systems: Sequence[System], depth: int
) -> list[tuple[dict[str, float], float]]:
    """For each system its ranking and its seconds; the question is encoded once, for those that need it."""
    started = time.perf_counter()
    needed = any(system.mode.model_legs for system in systems)
    encoded = retriever.encoder.encode_queries([question.query]) if needed else None
    encoding = time.perf_counter() - started
    asked = _Asked(question.query, encoded, level)
    found = []
    for system in systems:
        started = time.perf_counter()
        ranking = _rank(retriever, asked, system, depth)
        seconds = time.perf_counter() - started
        found.append((ranking, seconds + (encoding if system.mode.model_legs else 0.0)))
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, encoded where a system needs it, and what is ranked for it."""

    query: str
    encoded: M3Output | None
    level: Level


def _rank(retriever: HybridRetriever, asked: _Asked, system: System, depth: int) -> dict[str, float]:
    options: SearchOptions = {"mode": system.mode, "weights": system.weights, "k": depth}
    if asked.level == "document":
        options["group_by_document"] = 1
    elif asked.level == "page":
        options["k"] = depth * CHUNKS_PER_PAGE
    if asked.encoded is None:
        hits = retriever.search(asked.query, **options)
    else:
        hits = retriever.search_output(asked.encoded, text=asked.query, **options)
    if system.reranker is not None:
        top = system.reranker.rerank(asked.query, hits[: system.rerank_top]) if hits else []
        # Scores of two scales cannot be compared: what is written is the order alone.
        order = list(_units([*top, *hits[system.rerank_top :]], asked.level, depth))
        return {name: float(depth - before) for before, name in enumerate(order)}
    return as_ranked(_units(hits, asked.level, depth).items())


def _units(hits: Sequence[Hit], level: Level, depth: int) -> dict[str, float]:
    """The first `depth` units in the order of the hits, each with the score of its first hit."""
    units: dict[str, float] = {}
    for hit in hits:
        units.setdefault(_name(unit_of(hit.chunk, level)), hit.score)
    return dict(islice(units.items(), depth))


def _name(unit: tuple[str, int]) -> str:
    return f"{unit[0]}#page={unit[1]}" if unit[1] else unit[0]
