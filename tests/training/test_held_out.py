from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from m3rag.encoder import M3Encoder
from m3rag.evaluation.datasets import RetrievalSet
from m3rag.evaluation.run import evaluate
from m3rag.training import held_out
from m3rag.training.data import Example
from m3rag.training.encoding import LiveEncoding
from m3rag.training.held_out import measure, split_held_out
from m3rag.training.loss import LegScores
from m3rag.training.parts import part
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import load_trainee


def test_what_is_held_out_is_the_same_whatever_is_added(examples: list[Example]) -> None:
    learn, held = split_held_out(examples, per_source=6)
    assert len(held) == 6
    assert sorted(e.query for e in [*learn, *held]) == sorted(e.query for e in examples)
    fewer, more = (set(split_held_out(examples, per_source=n)[1]) for n in (3, 12))
    assert fewer < set(held) < more
    twice = [*examples, examples[0]]
    assert len({e.query for e in split_held_out(twice, per_source=9)[1]}) == 9
    assert split_held_out(examples, per_source=0) == (examples, [])
    assert len(split_held_out(examples[:3], per_source=50)[1]) == 1


def test_fewer_held_out_than_asked_for_is_said(examples: list[Example], caplog: pytest.LogCaptureFixture) -> None:
    part(examples[:6], TrainingSettings(held_out=3))
    assert not caplog.text
    parts = part(examples[:5], TrainingSettings(held_out=50))
    assert len(parts.held) == 2
    assert f"{examples[0].source}: 2 of its 5 questions are held out, not 50" in caplog.text


def test_the_figure_is_that_of_evaluation(small_checkpoint: Path, examples: list[Example]) -> None:
    held = examples[:70:3]  # more passages than fit in one block
    texts = list(dict.fromkeys(t for e in held for t in (*e.positives, *e.negatives)))
    numbers = {text: i for i, text in enumerate(texts)}
    trainee = load_trainee(str(small_checkpoint), TrainingSettings(), device=torch.device("cpu"))
    encoding = LiveEncoding(trainee, ["unused", *(e.query for e in held)], texts, 1000)
    found = measure(encoding, held, numbers, 1)
    dataset = RetrievalSet(
        name="held out",
        corpus={str(i): text for text, i in numbers.items()},
        queries={e.query: e.query for e in held},
        qrels={e.query: {str(numbers[text]): 1 for text in e.positives} for e in held},
    )
    encoder = M3Encoder(str(small_checkpoint), device="cpu", colbert_dtype="float32")
    table = evaluate(encoder, dataset, modes=["dense", "colbert", "all"], metrics=["ndcg@10"])
    for mode, value in table.items():
        assert found[mode] == pytest.approx(value["ndcg@10"], abs=1e-6), mode
    assert 0 <= found["lexical"] <= 1


class Numbers:
    """Gives rows themselves, for scores made of their numbers."""

    def queries(self, rows: Sequence[int]) -> Any:
        return rows

    def passages(self, rows: Sequence[int]) -> Any:
        return rows


def test_a_question_of_several_rows_counts_as_one_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_best(queries: Sequence[int], passages: Sequence[int]) -> LegScores:
        scores = torch.tensor([[1.0 - 0.1 * passage for passage in passages] for _ in queries])
        return LegScores(scores, scores, scores)

    monkeypatch.setattr(held_out, "leg_scores", first_best)
    numbers = {"a": 0, "b": 1, "c": 2, "d": 3}
    other = Example("r", ("c",), ("d",), "s")
    apart = [Example("q", ("a",), (), "s"), Example("q", ("b",), (), "s"), other]
    found = measure(Numbers(), apart, numbers, 0)
    assert found == measure(Numbers(), [Example("q", ("a", "b"), (), "s"), other], numbers, 0)
    assert found["dense"] == pytest.approx((1 + 0.5) / 2)


def test_what_scores_alike_is_in_an_order_of_chance_and_no_words_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(queries: Sequence[int], passages: Sequence[int]) -> LegScores:
        return LegScores(*(torch.zeros(len(queries), len(passages)) for _ in range(3)))

    monkeypatch.setattr(held_out, "leg_scores", alike)
    rows = [Example(f"q{i}", (f"p{i}",), tuple(f"n{i} {j}" for j in range(9)), f"s{i}") for i in range(60)]
    texts = [text for row in rows for text in (*row.positives, *row.negatives)]
    for listed in (texts, texts[::-1]):
        found = measure(Numbers(), rows, {text: i for i, text in enumerate(listed)}, 0)
        assert found["lexical"] == 0.0
        assert found["dense"] == found["all"] == pytest.approx(0.454, abs=0.08), "as ten in random order"
