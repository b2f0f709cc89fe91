"""Training examples in FlagEmbedding's jsonl: a query, passages that answer it, passages that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3rag.errors import InputError


@dataclass(frozen=True, slots=True)
class Example:
    """One question with a passage that answers it and hard negatives.

    Attributes:
        query: The question.
        positive: A passage that answers it.
        negatives: Passages that look alike and do not.
        source: The file it came from, without its suffix; batches are drawn from one source.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    source: str


def load_examples(path: Path, *, per_source: int, negatives: int, seed: int) -> list[Example]:
    """Draw up to `per_source` examples from each `.jsonl` file of a folder.

    The same number from each source balances the languages. Drawn without replacement, repeatably
    by the seed.

    Raises:
        InputError: If the folder holds no examples, or a line is not one.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"{path} holds no .jsonl training files")
    examples: list[Example] = []
    for file in files:
        found = list(_read(file, negatives))
        drawn = np.random.default_rng([seed, len(found)]).permutation(len(found))[:per_source]
        examples += [found[i] for i in drawn]
    return examples


def _read(file: Path, negatives: int) -> Iterator[Example]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                example = Example(row["query"], row["pos"][0], tuple(row["neg"][:negatives]), file.stem)
            except (ValueError, LookupError, TypeError) as error:
                raise InputError(f'{file}:{number}: not {{"query", "pos": [..], "neg": [..]}}: {error}') from error
            if example.query.strip() and example.positive.strip():
                yield example
