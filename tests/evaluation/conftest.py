"""Candidates with scores that are drawn, so that the weights that are best are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from m3rag.evaluation.labelled import Judgements, LabelledQuestion, Relevant
from m3rag.evaluation.tune_candidates import Judged


def draw(
    rng: np.random.Generator, questions: int, *, signal: Sequence[float], scale: Sequence[float] = (1, 1, 1)
) -> list[Judged]:
    """Questions with one relevant of 40 chunks, whose scores stand `signal` deviations above the noise of each leg."""
    found = []
    ids = [f"c{i:03}" for i in range(40)]
    units = [(key, 0) for key in ids]
    for i in range(questions):
        scores = rng.standard_normal((len(ids), 3))
        gold = int(rng.integers(len(ids)))
        scores[gold] += signal
        question = LabelledQuestion(str(i), f"question {i}", (Relevant(ids[gold]),))
        judged = Judgements("chunk", {units[gold]: 1}, ())
        found.append(Judged.of(question, judged, units, ids, scores * np.asarray(scale), depth=200))
    return found


@pytest.fixture(scope="session")
def drawn() -> Callable[..., list[Judged]]:
    return draw
