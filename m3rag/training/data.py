"""Training examples in FlagEmbedding's jsonl, gzipped or not: a query, passages that answer it and some that do not."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from m3rag.errors import InputError

SHAPE = '{"query": "..", "pos": [".."], "neg": [".."]}'
READ = frozenset({"query", "pos", "neg", "pos_scores", "neg_scores", "answers"})


@dataclass(frozen=True, slots=True)
class Example:
    """One question with passages that answer it and hard negatives.

    Attributes:
        query: The question.
        positives: Passages that answer it; one at least.
        negatives: Passages that look alike and do not.
        source: The file it came from, without its suffixes; batches are drawn from one source.
        positive_scores: A teacher's score of each positive; empty where there is none.
        negative_scores: A teacher's score of each negative; empty where there is none.
        answers: Short answers, by which mining knows a passage that answers too.
        more: What else its line says, such as FlagEmbedding's `prompt` or `type`; mining passes it on.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    source: str
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()
    answers: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher scored its passages."""
        return bool(self.positive_scores)


def load_examples(
    path: Path | str, *, per_source: int | None = None, negatives: int | None = None, seed: int = 0
) -> list[Example]:
    """Read a `.jsonl` or `.jsonl.gz` file, or every one of a folder.

    A line has `query`, `pos`, `neg` and may have `pos_scores`, `neg_scores` and `answers`. Lines whose
    query is blank, or that have no positive that is not, are left out. FlagEmbedding's `prompt` (an
    instruction of one example's own) is not read: a model has one prefix for all questions, in its recipe.

    Args:
        path: The file or the folder.
        per_source: At most so many of each file, drawn without replacement, repeatably by the seed:
            the same number from each balances the languages. All by default.
        negatives: Only the first so many negatives of each; all by default.
        seed: Of the draw.

    Returns:
        The examples, by file name, in the order drawn; all in the order of their file.

    Raises:
        InputError: If there are no examples, or a line is not one; it is named by file and number.
    """
    examples: list[Example] = []
    for file in training_files(path):
        found = list(read_examples(file, negatives=negatives))
        if per_source is None:
            examples += found
        else:
            drawn = np.random.default_rng([seed, len(found)]).permutation(len(found))[:per_source]
            examples += [found[i] for i in drawn]
    if not examples:
        raise InputError(f"{path} holds no training examples: give {SHAPE} a line")
    return examples


def training_files(path: Path | str) -> list[Path]:
    """The file itself, or the `.jsonl` and `.jsonl.gz` files of a folder by name; of two of one name the plain one.

    Raises:
        InputError: If there is none.
    """
    path = Path(path)
    if path.is_dir():
        both = (file for pattern in ("*.jsonl.gz", "*.jsonl") for file in path.glob(pattern))
        files = sorted({plain_name(file): file for file in both if file.is_file()}.items())
    else:
        files = [(path.name, path)] if path.is_file() else []
    if not files:
        raise InputError(f"{path} holds no .jsonl training files: give a file or a folder of {SHAPE} a line")
    return [file for _, file in files]


def plain_name(file: Path) -> str:
    """What a file is called when it is not gzipped."""
    return file.name.removesuffix(".gz")


def numbered_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, gzipped if its name says so, that are not blank, with their numbers from 1.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def read_examples(file: Path, *, negatives: int | None = None) -> Iterator[Example]:
    """The examples of one file, in its order; arguments and errors as in `load_examples`."""
    source = Path(plain_name(file)).stem
    for number, line in numbered_lines(file):
        try:
            example = _example(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), source)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(f"{file}:{number}: not {SHAPE}: {_reason(error)}") from error
        if not example.query.strip() or not example.positives:
            continue
        yield example if negatives is None else _with_fewer(example, negatives)


def require_examples(given: Iterable[Example]) -> list[Example]:
    """What was given as examples, as a list.

    Raises:
        InputError: If something is no example; it is named by its number.
    """
    if not isinstance(given, Iterable):
        raise InputError(f"data is a {type(given).__name__}, must be a .jsonl file, a folder of them, or examples")
    examples = list(given)
    for i, example in enumerate(examples):
        if not isinstance(example, Example):
            raise InputError(f"example {i} is a {type(example).__name__}, must be an m3rag.training.Example")
    return examples


def known_positives(examples: Iterable[Example]) -> dict[tuple[str, str], frozenset[str]]:
    """The passages that answer each question, by its source and text: it may have a row for each of them."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for example in examples:
        found[example.source, example.query].update(example.positives)
    return {key: frozenset(texts) for key, texts in found.items()}


def without_answers(examples: Iterable[Example]) -> list[Example]:
    """The examples without those negatives that answer their question: a passage would push itself away."""
    examples = list(examples)
    known = known_positives(examples)
    return [_without(example, known[example.source, example.query]) for example in examples]


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _example(row: Any, source: str) -> Example:
    if not isinstance(row, dict):
        raise TypeError(f"a {type(row).__name__} instead of an object")
    if not isinstance(row["query"], str):
        raise TypeError("query is not a string")
    positives, positive_scores = _scored(row, "pos", row["pos"])
    negatives, negative_scores = _scored(row, "neg", row.get("neg") or [])
    if negatives and bool(positive_scores) != bool(negative_scores):
        raise ValueError("pos_scores and neg_scores must be given both or neither")
    answers = tuple(_strings("answers", row.get("answers") or []))
    more = {key: value for key, value in row.items() if key not in READ}
    return Example(row["query"], positives, negatives, source, positive_scores, negative_scores, answers, more)


def _strings(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{key} is not a list of strings")
    return value


def _scored(row: dict[str, Any], key: str, value: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The passages that are not blank, and their scores if there are any."""
    texts, scores = _strings(key, value), row.get(f"{key}_scores")
    kept = [i for i, text in enumerate(texts) if text.strip()]
    if scores is None:
        return tuple(texts[i] for i in kept), ()
    numbers = isinstance(scores, list) and all(
        isinstance(s, (int, float)) and not isinstance(s, bool) and math.isfinite(s) for s in scores
    )
    if not numbers or len(scores) != len(texts):
        raise ValueError(f"{key}_scores must hold one finite number for each of {key}")
    return tuple(texts[i] for i in kept), tuple(float(scores[i]) for i in kept)


def _with_fewer(example: Example, negatives: int) -> Example:
    scores = example.negative_scores[:negatives]
    return replace(example, negatives=example.negatives[:negatives], negative_scores=scores)


def _without(example: Example, texts: frozenset[str]) -> Example:
    kept = [i for i, text in enumerate(example.negatives) if text not in texts]
    if len(kept) == len(example.negatives):
        return example
    scores = tuple(example.negative_scores[i] for i in kept) if example.negative_scores else ()
    return replace(example, negatives=tuple(example.negatives[i] for i in kept), negative_scores=scores)
