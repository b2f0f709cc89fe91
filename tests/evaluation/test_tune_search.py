"""The search over weights where the best are known, and where there is nothing to learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from m3rag.evaluation.tune_candidates import Judged
from m3rag.evaluation.tune_interval import bootstrap
from m3rag.evaluation.tune_search import Table, as_rows
from m3rag.scoring import Weights

DEFAULT = Weights(1.0, 0.3, 1.0)
Drawn = Callable[..., list[Judged]]


@pytest.mark.parametrize("leg", [0, 1, 2])
@pytest.mark.parametrize("scale", [(1, 1, 1), (0.02, 30, 5)])
def test_it_goes_to_the_one_leg_that_tells_something(drawn: Drawn, leg: int, scale: tuple[float, ...]) -> None:
    signal = np.eye(3)[leg] * 2.5
    table = Table.of(drawn(np.random.default_rng(leg), 300, signal=signal, scale=scale), DEFAULT, metric="ndcg@10")
    learned = as_rows([table.weights[table.best()]])[0] * scale
    assert learned[leg] / learned.sum() > 0.8


def test_it_finds_how_two_legs_are_best_mixed(drawn: Drawn) -> None:
    # Of Gaussian evidence the best weights are proportional to the signals (Fisher's discriminant).
    table = Table.of(drawn(np.random.default_rng(5), 1500, signal=(2, 1, 0)), DEFAULT, metric="mrr@10")
    dense, lexical, colbert = as_rows([table.weights[table.best()]])[0]
    assert dense == pytest.approx(2 / 3, abs=0.12)
    assert lexical == pytest.approx(1 / 3, abs=0.12)
    assert colbert < 0.1


def test_a_tie_keeps_the_default(drawn: Drawn) -> None:
    clear = drawn(np.random.default_rng(0), 40, signal=(50, 50, 50))
    table = Table.of(clear, DEFAULT, metric="ndcg@10")
    assert table.values.min() == 1.0
    assert table.best() == 0
    assert table.weights[0] is DEFAULT
    folds, held_out, used = table.cross_validate(folds=5, seed=0)
    assert (held_out == 1.0).all()
    assert used == [DEFAULT] * 40
    assert [fold.questions for fold in folds] == [8] * 5


def test_of_equals_the_nearest_to_the_default_is_taken() -> None:
    weights = (DEFAULT, Weights(1, 0, 0), Weights(1, 0.5, 1), Weights(0, 0, 1))
    values = np.array([[0.5, 0.8, 0.8, 0.1], [0.5, 0.8, 0.8, 0.6], [0.5, 0.5, 0.5, 0.9]])
    table = Table(weights, np.array([0.0, 0.9, 0.2, 0.8]), values)
    assert table.best() == 2
    assert table.best([1, 2]) == 3


def test_what_one_question_gains_moves_nothing() -> None:
    values = np.full((50, 2), 0.5)
    values[7, 1] = 1.0
    table = Table((DEFAULT, Weights(1, 0, 0)), np.array([0.0, 1.0]), values)
    assert table.best() == 0
    values[8, 1] = 1.0
    assert table.best() == 1


def test_a_leg_that_says_the_same_of_all_is_left_as_it_is(drawn: Drawn) -> None:
    table = Table.of(drawn(np.random.default_rng(1), 60, signal=(2, 1, 2), scale=(1, 0, 1)), DEFAULT, metric="ndcg@10")
    assert np.isfinite(table.distances).all()
    assert table.distances[0] == 0


def test_it_repeats(drawn: Drawn) -> None:
    def once(seed: int) -> tuple[object, ...]:
        table = Table.of(drawn(np.random.default_rng(3), 80, signal=(1, 1, 1)), DEFAULT, metric="ndcg@10")
        folds, held_out, _ = table.cross_validate(folds=4, seed=seed)
        return table.best(), folds, held_out.tolist()

    assert once(0) == once(0)
    assert once(0)[1] != once(1)[1]


def test_no_fold_is_judged_on_what_it_was_learned_from() -> None:
    # Weights i solve every question but i, so that they are what is learned without question i.
    n = 6
    weights = (DEFAULT, *(Weights(1, i, 0) for i in range(n)))
    table = Table(weights, np.arange(n + 1.0), np.hstack([np.zeros((n, 1)), 1 - np.eye(n)]))
    folds, held_out, used = table.cross_validate(folds=n, seed=0)
    assert held_out.tolist() == [0.0] * n
    assert used == list(weights[1:])
    assert [(fold.questions, fold.score) for fold in folds] == [(1, 0.0)] * n
    assert table.values[:, table.best()].mean() == pytest.approx((n - 1) / n)


def test_what_is_learned_from_noise_does_not_look_good(drawn: Drawn) -> None:
    in_sample, held_out, false_alarms = [], [], 0
    for seed in range(40):
        table = Table.of(drawn(np.random.default_rng(seed), 40, signal=(0, 0, 0)), DEFAULT, metric="ndcg@10", steps=10)
        _, values, _ = table.cross_validate(folds=5, seed=seed)
        before = table.values[:, 0]
        in_sample.append(table.values[:, table.best()].mean() - before.mean())
        held_out.append((values - before).mean())
        false_alarms += bootstrap(values - before, seed=seed).low > 0
    assert np.mean(in_sample) > 0.02, "on its own questions even noise looks like a gain"
    assert np.mean(held_out) < 2 * np.std(held_out) / np.sqrt(len(held_out))
    assert false_alarms <= 4  # of 40, where 1 is expected
