"""How sure a mean is: bootstrap intervals, and how many questions an effect needs to show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLES = 10_000
BLOCK = 500
"""Samples drawn at a time: it bounds memory, never a result."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval that holds the true one with a given probability.

    Attributes:
        mean: Of what was seen.
        low: Lower bound.
        high: Upper bound.
        level: The probability, such as .95.
    """

    mean: float
    low: float
    high: float
    level: float


def bootstrap(values: npt.NDArray[np.float64], *, level: float = 0.95, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: `(n,)`, n >= 1, independent of each other; differences of paired values for a paired
            comparison.
        level: Probability that the interval holds the true mean, in (0, 1).
        seed: The same seed gives the same interval.
    """
    rng, n = np.random.default_rng(seed), len(values)
    means = np.concatenate([values[rng.integers(n, size=(BLOCK, n))].mean(axis=1) for _ in range(SAMPLES // BLOCK)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), level)


def questions_needed(interval: Interval, n: int, effect: float) -> int:
    """How many questions would make an interval narrower than an effect, so that it cannot hold both it and 0.

    The width falls with the root of the number of questions.

    Args:
        interval: Seen on `n` questions.
        n: How many these were.
        effect: Such as the least gain worth having, > 0.
    """
    return math.floor(n * ((interval.high - interval.low) / effect) ** 2) + 1
