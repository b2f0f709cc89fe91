"""The search over weights: every point of a grid on every question, then means of what was seen.

nDCG is a step function of the weights, without a gradient, and two ratios are all there is to learn.
So each question is judged once under each weights of a fixed grid; what a fold learns, and how it
does on the questions held out, are then means over rows of one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.evaluation.tune_candidates import Floats, Judged
from m3rag.scoring import Weights
from m3rag.types import LEGS

STEPS = 30
"""The grid's weights are multiples of 1/30 of a sum of 1, in units of each leg's spread: 496 points."""

CAUTION = 1.0
"""How many standard errors a gain must exceed to count."""

SAME = 1e-9
"""Means nearer than this are a tie: they differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of a cross-validation.

    Attributes:
        weights: Learned on all other folds.
        questions: How many are held out.
        score: Mean of the metric over them with these weights.
        default_score: The same with the default weights.
    """

    weights: Weights
    questions: int
    score: float
    default_score: float


@dataclass(frozen=True, eq=False)
class Table:
    """The metric of each question under each weights of the grid.

    Attributes:
        weights: `w` of them; the first are the default.
        distances: `(w,)` how far each is from the default.
        values: `(questions, w)`.
    """

    weights: tuple[Weights, ...]
    distances: Floats
    values: Floats

    @classmethod
    def of(cls, judged: Sequence[Judged], default: Weights, *, metric: str, steps: int = STEPS) -> Table:
        """Judge every question under every weights of the grid."""
        weights, distances = _grid(_spread(judged), default, steps)
        values = np.array([question.values(as_rows(weights), metric) for question in judged])
        return cls(tuple(weights), distances, values)

    def best(self, rows: Sequence[int] | slice = slice(None)) -> int:
        """Which weights are most surely better than the default on some questions.

        That is the greatest mean gain less its standard error, after the one-standard-error rule of
        Breiman et al. (1984): the greatest mean itself is mostly luck where many weights do about as
        well. The default gains 0; of equals, those nearest to it are taken.
        """
        gains = self.values[rows] - self.values[rows, :1]
        sure = gains.mean(axis=0) - CAUTION * gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
        equal = np.flatnonzero(sure >= sure.max() - SAME)
        return int(equal[np.argmin(self.distances[equal])])

    def cross_validate(self, *, folds: int, seed: int) -> tuple[list[Fold], Floats, list[Weights]]:
        """Learn on all folds but one, and judge on that one, for each in turn.

        Returns:
            The folds, each question's value under the weights learned without it `(questions,)`, and
            those weights.
        """
        n = len(self.values)
        told: list[Fold] = []
        held_out, used = np.zeros(n), [0] * n
        for part in np.array_split(np.random.default_rng(seed).permutation(n), folds):
            chosen = self.best(np.setdiff1d(np.arange(n), part).tolist())
            held_out[part] = self.values[part, chosen]
            for question in part:
                used[question] = chosen
            score, default_score = held_out[part].mean(), self.values[part, 0].mean()
            told.append(Fold(self.weights[chosen], len(part), float(score), float(default_score)))
        return told, held_out, [self.weights[i] for i in used]


def as_rows(weights: Sequence[Weights]) -> Floats:
    """Weights as `(w, 3)`, each with a sum of 1, since only ratios matter."""
    rows = np.array([[each.of(leg) for leg in LEGS] for each in weights], np.float64)
    shares: Floats = rows / rows.sum(axis=1, keepdims=True)
    return shares


def _spread(judged: Sequence[Judged]) -> Floats:
    """How far the scores of one question's candidates lie apart in each leg, on average: `(3,)`.

    The legs have scales of their own, which differ by model; in units of the spread one grid suits all.
    """
    spreads = [question.scores.std(axis=0) for question in judged if len(question.scores) > 1]
    mean = np.mean(spreads, axis=0) if spreads else np.ones(len(LEGS))
    return np.where(mean > 0, mean, 1.0)


def _grid(spread: Floats, default: Weights, steps: int) -> tuple[list[Weights], Floats]:
    """The default, then the grid, rounded as they will be written; and how far each is from the default."""
    parts = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)], np.float64)
    raw = parts / spread
    scaled = raw / raw.max(axis=1, keepdims=True)
    rounded = (Weights(*(float(f"{value:.3g}") for value in row)) for row in scaled.tolist())
    weights = list(dict.fromkeys([default, *rounded]))
    shares = as_rows(weights) * spread
    shares /= shares.sum(axis=1, keepdims=True)
    return weights, np.abs(shares - shares[0]).sum(axis=1)
