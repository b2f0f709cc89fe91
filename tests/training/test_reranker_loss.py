"""The loss and its gradients: FlagEmbedding's, whatever the sub-batches."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from m3rag.training.batches import Draw
from m3rag.training.data import Example
from m3rag.training.parts import part
from m3rag.training.reranker import RerankerObjective
from m3rag.training.settings import RerankerSettings

CPU = torch.device("cpu")
DRAWN = [Draw(0, 0, (0, 1)), Draw(3, 0, (0, 1)), Draw(7, 0, (0, 1))]


def objective_of(base: Path, examples: list[Example], **options: Any) -> RerankerObjective:
    settings = RerankerSettings(**options)
    return RerankerObjective(str(base), part(examples, settings), settings, device=CPU)


def gradients(objective: RerankerObjective, drawn: list[Draw]) -> dict[str, torch.Tensor]:
    objective.trainee.network.train()
    torch.manual_seed(5)  # of the dropout
    objective.losses(drawn)["total"].backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in objective.trainee.trained.items() if p.grad is not None}


def value(objective: RerankerObjective) -> float:
    return objective.losses(DRAWN)["total"].item()


@pytest.mark.parametrize("teacher", [False, True])
def test_equals_the_reference(teacher: bool, small_bert_reranker: Path, examples: list[Example]) -> None:
    judged = [replace(e, positive_scores=(i / 9,), negative_scores=(1.0, -i / 7)) for i, e in enumerate(examples)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding.finetune.reranker.encoder_only.base.modeling import CrossEncoderModel

        tokenizer = AutoTokenizer.from_pretrained(small_bert_reranker)
        network = AutoModelForSequenceClassification.from_pretrained(small_bert_reranker)
        model = CrossEncoderModel(network, tokenizer=tokenizer, train_batch_size=len(DRAWN))
        model.train()
        network.eval()  # no dropout
        chosen = [judged[choice.example] for choice in DRAWN]
        pairs = [(e.query, text) for e in chosen for text in (*e.positives, *e.negatives)]
        scores = [score for e in chosen for score in (*e.positive_scores, *e.negative_scores)]
        batch = tokenizer(pairs, padding=True, return_tensors="pt", return_token_type_ids=True)
        expected = model(dict(batch), teacher_scores=scores if teacher else None).loss
    objective = objective_of(small_bert_reranker, judged, teacher=teacher)
    assert value(objective) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sub_batches_give_the_gradients_of_the_whole(
    method: str, small_bert_bare: Path, examples: list[Example]
) -> None:
    found = [
        gradients(objective_of(small_bert_bare, examples, method=method, sub_batch_tokens=tokens), DRAWN)
        for tokens in (10_000, 1, 40)
    ]
    assert max(float(g.abs().max()) for g in found[0].values()) > 0.01
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, gradient in found[0].items():
            assert torch.allclose(other[name], gradient, atol=1e-5), name


def test_a_sub_batch_computed_again_has_the_same_dropout(small_bert: Path, examples: list[Example]) -> None:
    objective = objective_of(small_bert, examples, dropout=0.5, sub_batch_tokens=20, method="full")
    first = {name: g.clone() for name, g in gradients(objective, DRAWN).items()}
    objective.trainee.network.zero_grad()
    again = gradients(objective, DRAWN)
    assert all(torch.equal(first[name], again[name]) for name in first)
    objective.trainee.network.eval()
    without = value(objective)
    objective.trainee.network.train()
    assert value(objective) != pytest.approx(without, abs=1e-3)


def test_questions_with_fewer_negatives(small_bert_reranker: Path, examples: list[Example]) -> None:
    one = replace(examples[7], negatives=examples[7].negatives[:1])
    objective = objective_of(small_bert_reranker, [*examples[:7], one])
    drawn = [Draw(0, 0, (0, 1)), Draw(3, 0, (0,)), Draw(7, 0, (0,))]
    with torch.no_grad():
        found = objective.losses(drawn)["total"]
        alone = [objective.losses([choice])["total"] for choice in drawn]
    assert float(found) == pytest.approx(float(sum(alone)) / 3, abs=1e-5)


def test_the_tokens_of_a_step_are_planned_as_they_are(small_bert: Path, examples: list[Example]) -> None:
    long = replace(examples[0], negatives=("the " * 200,))
    objective = objective_of(small_bert, [long, *examples[1:]], negatives=1, query_length=40)
    pairs = [(e.query, t) for e in (long, *examples[1:]) for t in (*e.positives, *e.negatives)]
    tokens = dict(zip(pairs, (len(p.ids) for p in objective.trainee.tokenize(pairs)), strict=True))
    found = objective.lengths()
    for length, example in zip(found, (long, *examples[1:]), strict=True):
        of_negatives = max(tokens[example.query, text] for text in example.negatives)
        exact = tokens[example.query, example.positives[0]] + of_negatives
        assert exact <= length <= 2 * objective.trainee.max_length
        assert length == exact or example is long
