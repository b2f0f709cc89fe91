"""Labelled questions: what a person says should be found in an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from m3rag.errors import InputError
from m3rag.evaluation.datasets import RetrievalSet, load_beir, records, string
from m3rag.store.protocol import Store
from m3rag.types import Chunk

Level = Literal["document", "page", "chunk"]
"""What a question's judgements are about, and so what is ranked for it."""

Unit = tuple[str, int]
"""What is ranked: (document id, 0), (document id, page number) or (chunk id, 0)."""


@dataclass(frozen=True, slots=True)
class Relevant:
    """Something that should be found for a question.

    Attributes:
        id: A document's id, else a chunk's.
        page: A page of the document, from 1; None for the whole document, or for a chunk.
        gain: How much it is worth beside others; >= 1.
    """

    id: str
    page: int | None = None
    gain: int = 1

    def __str__(self) -> str:
        return self.id if self.page is None else f"{self.id} page {self.page}"


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question with what should be found for it.

    Attributes:
        id: Names the question in messages.
        query: The text.
        relevant: At least one.
    """

    id: str
    query: str
    relevant: tuple[Relevant, ...]


@dataclass(frozen=True)
class Judgements:
    """A question's relevant units as an index has them.

    Attributes:
        level: What is ranked for the question.
        gains: Unit to gain, only of units that are in the index.
        missing: What is not in the index, for people.
    """

    level: Level
    gains: dict[Unit, int]
    missing: tuple[str, ...]


def load_labelled(path: Path | str, *, split: str = "train", absent: bool = False) -> list[LabelledQuestion]:
    """Read labelled questions from a file of one JSON object a line, or from a folder in BEIR's form.

    A line is `{"query": "...", "relevant": [...]}`, with an `id` if you like (else `line-7`). Each relevant is a
    document's or a chunk's id as the index has it, or an object `{"id": "report.pdf", "page": 3,
    "gain": 2}` whose `page` and `gain` may be left out.

    Args:
        path: The file or the folder.
        split: Which judgements of a folder, `qrels/<split>.tsv`; gains of 0 and less are left out.
        absent: As in `load_beir`.

    Raises:
        InputError: If a file is missing or malformed; the message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        return _from_beir(load_beir(path, split=split, absent=absent))
    questions = [labelled_of(where, record) for where, record in records(path)]
    if not questions:
        raise InputError(f'{path} holds no question: each line is {{"query": "...", "relevant": ["document id"]}}')
    return questions


def distinct(questions: Sequence[LabelledQuestion]) -> list[LabelledQuestion]:
    """The questions with each text once, relevant being what is so for any of its occurrences.

    One text in two folds of a cross-validation would be tested on what it was learned from.
    """
    found: dict[str, LabelledQuestion] = {}
    for question in questions:
        known = found.setdefault(question.query, replace(question, relevant=()))
        best = {(item.id, item.page): item for item in sorted((*known.relevant, *question.relevant), key=_gain)}
        found[question.query] = replace(known, relevant=tuple(best.values()))
    return list(found.values())


def judgements(question: LabelledQuestion, store: Store) -> Judgements:
    """What is relevant to a question, in an index.

    An id is a document's if there is such a document, else a chunk's. A page is that of the chunks
    that begin on it, or of the one that runs over it from an earlier page.

    Raises:
        InputError: If some of it are documents, some pages or some chunks: one ranking cannot hold
            two kinds of things.
    """
    gains: dict[Unit, int] = {}
    missing: list[str] = []
    levels: set[Level] = set()
    for item in question.relevant:
        level, unit = _unit(item, store)
        if unit is None:
            missing.append(str(item))
        else:
            levels.add(level)
            gains[unit] = max(item.gain, gains.get(unit, 0))
    if len(levels) > 1:
        raise InputError(
            f"the question {question.id!r} calls {'s and '.join(sorted(levels))}s relevant: name things of one kind, "
            f"of {', '.join(get_args(Level))}"
        )
    return Judgements(next(iter(levels), "document"), gains, tuple(missing))


def unit_of(chunk: Chunk, level: Level) -> Unit:
    """What a chunk counts for in a ranking of documents, pages or chunks."""
    if level == "chunk":
        return chunk.id, 0
    return chunk.document_id, 0 if level == "document" else chunk.page or 0


def _unit(item: Relevant, store: Store) -> tuple[Level, Unit | None]:
    record = store.document(item.id)
    if item.page is None:
        if record is not None:
            return "document", (item.id, 0)
        return "chunk", (item.id, 0) if store.get([item.id]) else None
    if record is None or not 1 <= item.page <= record.pages:
        return "page", None
    # Chunks are numbered by the page they begin on, and one may run over several.
    spans = ((chunk.page, record.page_of(max(chunk.start, chunk.end - 1))) for chunk in store.chunks_of(item.id))
    begins = [first for first, last in spans if first is not None and last is not None and first <= item.page <= last]
    return "page", (item.id, max(begins)) if begins else None


def labelled_of(where: str, record: dict[str, Any]) -> LabelledQuestion:
    """A question from its record. Raises an InputError that names the place if it is malformed."""
    query = string(where, record, "query")
    relevant = record.get("relevant")
    if not query.strip():
        raise InputError(f"{where}: the query is empty")
    if not isinstance(relevant, list) or not relevant:
        raise InputError(
            f"{where}: 'relevant' must be a list of at least one document or chunk id, got {relevant!r:.60}; leave out "
            "a question that nothing answers"
        )
    # The path would tell two runs of the same questions apart.
    key = string(where, record, "id") if "id" in record else f"line-{where.rpartition(':')[2]}"
    return LabelledQuestion(key, query, tuple(_relevant(where, item) for item in relevant))


def _relevant(where: str, item: object) -> Relevant:
    if isinstance(item, str):
        return Relevant(item)
    if not isinstance(item, dict) or not set(item) <= {"id", "page", "gain"}:
        raise InputError(f"{where}: a relevant must be an id or an object of id, page and gain, got {item!r:.60}")
    for key in ("page", "gain"):
        if key in item and (type(item[key]) is not int or item[key] < 1):
            raise InputError(f"{where}: {key!r} must be a whole number of at least 1, got {item[key]!r:.60}")
    return Relevant(string(where, item, "id"), item.get("page"), item.get("gain", 1))


def _from_beir(dataset: RetrievalSet) -> list[LabelledQuestion]:
    return [
        LabelledQuestion(key, text, tuple(Relevant(i, gain=gain) for i, gain in dataset.qrels[key].items() if gain > 0))
        for key, text in dataset.queries.items()
    ]


def _gain(item: Relevant) -> int:
    return item.gain
