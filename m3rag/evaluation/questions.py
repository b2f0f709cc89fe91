"""The questions of an evaluation, from any of the three forms in which people keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3rag.errors import InputError
from m3rag.evaluation.datasets import RetrievalSet, question_of, records, string
from m3rag.evaluation.labelled import LabelledQuestion, Relevant, labelled_of


@dataclass(frozen=True, slots=True)
class EvalQuestion:
    """A question with what should be found for it, and what should be answered.

    Attributes:
        id: Unique among the questions.
        query: The text.
        relevant: What should be found; nothing if nothing answers the question.
        answers: The short answers that count as right, none if refusing is right; None where the file
            does not say, so that answers cannot be judged.
        lang: The language of the question, "" where the file does not say.
    """

    id: str
    query: str
    relevant: tuple[Relevant, ...]
    answers: tuple[str, ...] | None = None
    lang: str = ""

    @property
    def labelled(self) -> LabelledQuestion:
        """The question without its answers."""
        return LabelledQuestion(self.id, self.query, self.relevant)


def load_eval_questions(path: Path | str) -> list[EvalQuestion]:
    """Read questions, one JSON object a line, of either form or both.

    `{"id", "question", "answers", "gold_ids"}` as in `load_questions`: what is relevant are its
    `gold_ids`, and nothing where it is unanswerable. `{"query", "relevant"}` as in `load_labelled`. Each
    may have `lang`.

    Raises:
        InputError: If the file is missing, malformed or without questions, or an id is there twice; the
            message names file and line.
    """
    questions: dict[str, EvalQuestion] = {}
    for where, record in records(Path(path)):
        question = _with_answers(where, record) if "question" in record else _labelled(where, record)
        if question.id in questions:
            raise InputError(f"{where}: the id {question.id!r} is there twice; ids must be unique")
        questions[question.id] = question
    if not questions:
        raise InputError(
            f'{path} holds no question: each line is {{"id": ..., "question": ..., "answers": [...], "gold_ids": '
            '[...]} or {"query": ..., "relevant": [...]}'
        )
    return list(questions.values())


def questions_of(dataset: RetrievalSet) -> list[EvalQuestion]:
    """The questions of a set in BEIR's form; gains of 0 and less are not relevant."""
    return [
        EvalQuestion(
            key,
            text,
            tuple(Relevant(passage, gain=gain) for passage, gain in dataset.qrels[key].items() if gain > 0),
            lang=dataset.langs.get(key, ""),
        )
        for key, text in dataset.queries.items()
    ]


def languages(questions: Sequence[EvalQuestion]) -> list[str]:
    """The languages that the questions carry, in order of the alphabet."""
    return sorted({question.lang for question in questions} - {""})


def _with_answers(where: str, record: dict[str, Any]) -> EvalQuestion:
    question = question_of(where, record)
    if not question.question.strip():
        raise InputError(f"{where}: the question is empty")
    gold = tuple(Relevant(key) for key in dict.fromkeys(question.gold_ids)) if question.answerable else ()
    return EvalQuestion(question.id, question.question, gold, question.answers, question.lang)


def _labelled(where: str, record: dict[str, Any]) -> EvalQuestion:
    question = labelled_of(where, record)
    lang = string(where, record, "lang") if "lang" in record else ""
    return EvalQuestion(question.id, question.query, question.relevant, lang=lang)
