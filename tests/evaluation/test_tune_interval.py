"""Bootstrap intervals against what is known of means, and how many questions an effect needs."""

from __future__ import annotations

import numpy as np
import pytest

from m3rag.evaluation.tune_interval import Interval, bootstrap, questions_needed


def test_it_is_near_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    found = bootstrap(values)
    error = values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found.level == 0.95
    narrow = bootstrap(values, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    # Differences of nDCG are mostly 0, with a skewed rest: their true mean is .1 * .3.
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        values = np.where(rng.random(100) < 0.1, 0.3 * rng.exponential(size=100), 0.0)
        found = bootstrap(values, level=0.9)
        held += found.low <= 0.03 <= found.high
    assert 160 <= held <= 196  # of 200, where 180 are promised


def test_it_repeats_and_one_value_is_sure() -> None:
    values = np.random.default_rng(2).random(30)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)
    assert bootstrap(np.full(30, 0.25)) == Interval(0.25, 0.25, 0.25, 0.95)


def test_the_number_needed_makes_the_interval_narrow_enough() -> None:
    rng = np.random.default_rng(4)
    seen = bootstrap(rng.normal(0, 0.1, 50))
    needed = questions_needed(seen, 50, 0.02)
    assert 200 < needed < 800
    then = bootstrap(rng.normal(0, 0.1, needed))
    assert then.high - then.low == pytest.approx(0.02, rel=0.25)
    assert questions_needed(Interval(0, 0, 0, 0.95), 50, 0.02) == 1
