"""Labelled data for evaluation: a folder in BEIR's form, or questions with short answers; any file may be gzipped."""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from m3rag.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrievalSet:
    """Passages, questions, and which passages answer which question.

    Attributes:
        name: For people.
        corpus: Passage id to text; a title, where there is one, is the first line of the text.
        queries: Query id to text, only those with something relevant, in the order of their file.
        qrels: Query id to passage id to gain.
        langs: Query id to its language, of those queries whose line says `lang`.
    """

    name: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    langs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the short answers that count as right.

    Attributes:
        id: Unique in its file.
        question: The text.
        answers: Empty if the documents do not answer the question.
        gold_ids: The passages that hold an answer.
        answerable: False where the right answer is to say that there is none.
        lang: As the file says, "" where it does not.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_ids: tuple[str, ...] = ()
    answerable: bool = True
    lang: str = ""


def load_beir(
    folder: Path | str, *, split: str = "test", name: str | None = None, absent: bool = False
) -> RetrievalSet:
    """Read a folder in BEIR's form: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, or these gzipped (`.gz`).

    Queries of whose judgements none is above 0 are left out, which the log says: no search can do well or
    badly on them.

    Args:
        folder: The folder.
        split: Which judgements.
        name: For people; the folder's name by default.
        absent: Take judgements of passages that the corpus does not have too, instead of refusing.

    Raises:
        InputError: If a file is missing or malformed, a judged query is empty, a judgement names a query or
            a passage that is not there, or contradicts another, or no gain is above 0; the message names file
            and line.
    """
    folder = Path(folder)
    corpus_path, queries_path, qrels_path = (
        folder / part for part in ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    )
    if _found(corpus_path).is_file() and not _found(qrels_path).is_file():
        there = ", ".join(sorted({file.name.partition(".")[0] for file in folder.glob("qrels/*.tsv*")})) or "none"
        raise InputError(f"{qrels_path} is missing; the splits there are: {there}")
    corpus = _texts(corpus_path)
    queries = _texts(queries_path)
    qrels = _with_relevant(qrels_path, _qrels(qrels_path, corpus=None if absent else corpus, queries=queries))
    return RetrievalSet(
        name=name or folder.resolve().name,
        corpus=MappingProxyType(corpus),
        queries=MappingProxyType({key: text for key, text in queries.items() if key in qrels}),
        qrels=MappingProxyType({key: MappingProxyType(judged) for key, judged in qrels.items()}),
        langs=MappingProxyType(_langs(queries_path, qrels)),
    )


def load_corpus(path: Path | str) -> dict[str, str]:
    """Read passages from a `corpus.jsonl` in BEIR's form that stands alone: passage id to text.

    A title, where there is one, is the first line of the text.

    Raises:
        InputError: If the file is missing or malformed; the message names file and line.
    """
    return _texts(Path(path))


def load_questions(path: Path | str) -> list[Question]:
    """Read questions, one JSON object a line.

    Each has `id`, `question` and `answers` (a list of strings), and may have `gold_ids`, `answerable`
    and `lang`. Without `answerable` a question is answerable if it has answers.

    Raises:
        InputError: If the file is missing or malformed; the message names file and line.
    """
    questions: dict[str, Question] = {}
    for where, record in records(Path(path)):
        question = question_of(where, record)
        if question.id in questions:
            raise InputError(f"{where}: the id {question.id!r} is there twice; ids must be unique")
        questions[question.id] = question
    return list(questions.values())


def question_of(where: str, record: dict[str, Any]) -> Question:
    """A question from its record. Raises an InputError that names the place if it is malformed."""
    answers = strings(where, record, "answers")
    answerable = record.get("answerable", bool(answers))
    if answerable is not bool(answers):
        raise InputError(
            f"{where}: 'answerable' is {answerable!r} with {len(answers)} answers; it must be true with answers "
            "and false without"
        )
    return Question(
        id=string(where, record, "id"),
        question=string(where, record, "question"),
        answers=answers,
        gold_ids=strings(where, record, "gold_ids") if "gold_ids" in record else (),
        answerable=answerable,
        lang=string(where, record, "lang") if "lang" in record else "",
    )


def _texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, record in records(path):
        key = string(where, record, "_id")
        if key in texts:
            raise InputError(f"{where}: the _id {key!r} is there twice; ids must be unique")
        text = string(where, record, "text")
        title = string(where, record, "title") if record.get("title") else ""
        texts[key] = f"{title}\n{text}" if title else text
    return texts


def _langs(path: Path, queries: Container[str]) -> dict[str, str]:
    return {
        record["_id"]: string(where, record, "lang")
        for where, record in records(path)
        if "lang" in record and record["_id"] in queries
    }


def _with_relevant(path: Path, qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    kept = {key: judged for key, judged in qrels.items() if any(gain > 0 for gain in judged.values())}
    if not kept:
        raise InputError(f"{path}: no passage is judged relevant, which takes a gain above 0")
    if len(kept) < len(qrels):
        log.warning("%s: %d queries are left out, since nothing is relevant to them", path, len(qrels) - len(kept))
    return kept


def _qrels(path: Path, *, corpus: Container[str] | None, queries: Mapping[str, str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for at, (number, line) in enumerate(_lines(path)):
        where = f"{path}:{number}"
        parts = line.split("\t")
        if at == 0 and parts[-1] == "score":
            continue
        try:
            # More columns are another form: of TREC's four the second would pass for the passage.
            query_id, passage_id, score = parts
            gain = int(score)
        except ValueError:
            raise InputError(
                f"{where}: expected query id, passage id and a whole number between tabs, got {line[:80]!r}"
            ) from None
        if query_id not in queries:
            raise InputError(f"{where}: the query {query_id!r} is not in queries.jsonl: add it, or remove this line")
        if not queries[query_id].strip():
            raise InputError(f"{where}: the query {query_id!r} is empty in queries.jsonl: give its text, or remove it")
        if corpus is not None and passage_id not in corpus:
            raise InputError(
                f"{where}: the passage {passage_id!r} is not in corpus.jsonl: add it, remove this line, or skip what "
                "is missing (absent=True, --skip-missing)"
            )
        if qrels.setdefault(query_id, {}).setdefault(passage_id, gain) != gain:
            raise InputError(
                f"{where}: the passage {passage_id!r} is judged twice for the query {query_id!r}, "
                f"{qrels[query_id][passage_id]} and {gain}: remove one of them"
            )
    if not qrels:
        raise InputError(f"{path}: there are no judgements; each line is query id, passage id and gain between tabs")
    return qrels


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a jsonl file, each with `file:line` for messages.

    Raises:
        InputError: If the file is missing, no UTF-8, or a line is no JSON object.
    """
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
        except (RecursionError, ValueError) as error:  # or a number of thousands of digits
            raise InputError(f"{where}: JSON that cannot be read ({error}): mend this line") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object, got {type(record).__name__}")
        yield where, record


def _found(path: Path) -> Path:
    """The file, or what stands for it gzipped."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        found = _found(path)
        content = found.read_bytes()
        if found.suffix == ".gz":
            content = gzip.decompress(content)
        # Not str.splitlines: a text may hold U+2028 and the like unescaped.
        lines = re.split("\r\n?|\n", content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def string(where: str, record: dict[str, Any], key: str) -> str:
    """A record's string. Raises an InputError that names the place if it is missing or none."""
    value = record.get(key)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} must be a string, got {value!r:.60}")
    return value


def strings(where: str, record: dict[str, Any], key: str) -> tuple[str, ...]:
    """A record's list of strings. Raises an InputError that names the place if it is missing or none."""
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {key!r} must be a list of strings, got {value!r:.60}")
    return tuple(value)
