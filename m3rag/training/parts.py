"""The examples of a run: those to learn from, those to measure on."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3rag.errors import InputError
from m3rag.training import distributed
from m3rag.training.data import Example, load_examples, require_examples, without_answers
from m3rag.training.held_out import split_held_out
from m3rag.training.settings import RunSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run learns from and is measured on.

    Attributes:
        learn: At least two examples, and one for every worker.
        held: Those held out.
        sha256: Of all.
    """

    learn: list[Example]
    held: list[Example]
    sha256: str

    @property
    def texts(self) -> list[str]:
        """All passages, each once, in order of first use."""
        shown = (text for e in (*self.learn, *self.held) for text in (*e.positives, *e.negatives))
        return list(dict.fromkeys(shown))


def read(data: Path | str | Sequence[Example], settings: RunSettings, *, negatives: int | None = None) -> list[Example]:
    """The examples that were given, or those of the files, without negatives that answer their question.

    Args:
        data: A `.jsonl` file, a folder of them, or examples.
        settings: The run.
        negatives: Only the first so many of each example, of files; all by default.

    Raises:
        InputError: If a file holds a bad line, there are no examples, or something is given that is none.
    """
    if not isinstance(data, Path | str):
        return without_answers(require_examples(data))
    found = load_examples(data, per_source=settings.per_source, negatives=negatives, seed=settings.seed)
    return without_answers(found)


def part(examples: Sequence[Example], settings: RunSettings) -> Parts:
    """Hold examples out, and refuse what cannot be learned from.

    Raises:
        InputError: If there are too few, or a teacher is wanted who has not judged all.
    """
    learn, held = split_held_out(examples, per_source=settings.held_out)
    if settings.held_out and distributed.rank() == 0:
        _tell_of_few(examples, held, wanted=settings.held_out)
    if len(learn) < max(2, distributed.world_size()):
        raise InputError(f"{len(learn)} examples are too few to train on: give at least 2, and one a worker")
    silent = next((e.query for e in learn if not e.has_teacher), None)
    if settings.teacher and silent is not None:
        raise InputError(
            f"no pos_scores and neg_scores of the question {silent!r}: leave teacher out, or let one judge all "
            "with `m3rag mine --keep --teacher MODEL`"
        )
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode("utf-8", "backslashreplace"))
    return Parts(learn, held, digest.hexdigest())


def _tell_of_few(examples: Sequence[Example], held: Sequence[Example], *, wanted: int) -> None:
    """Say of each source with fewer held-out questions than wanted how many there are."""
    kept = _questions(held)
    for source, questions in _questions(examples).items():
        if len(kept[source]) < wanted:
            log.warning(
                "%s: %d of its %d questions are held out, not %d: at most half of a file are; add questions, or lower "
                "held_out (--held-out)",
                source,
                len(kept[source]),
                len(questions),
                wanted,
            )


def _questions(examples: Sequence[Example]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        found[example.source].add(example.query)
    return found
