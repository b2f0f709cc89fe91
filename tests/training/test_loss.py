from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.errors import ConfigurationError
from m3rag.training.loss import (
    MASKED,
    LegScores,
    Teacher,
    contrastive_loss,
    distillation_loss,
    info_nce,
    leg_loss,
    m3_loss,
    m3_losses,
    multiple_negatives_ranking,
    teacher_loss,
    triplet,
)
from m3rag.training.representation import leg_scores
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import load_trainee

QUERIES = ["where lives the red duck", "which swan is blue", "the heron"]
# Of one length: in the reference, padding takes part in the maximum of ColBERT.
PASSAGES = [
    "the red duck does swim",
    "the blue duck is here",
    "a red swan not here",
    "the swan is blue here",
    "which swan is in delta",
    "a pike is not blue",
    "a heron lives in marsh",
    "the carp lives in lake",
    "grey crane of the bay",
]
TEACHER = [3.0, 1.0, -2.0, 0.5, 0.4, -1.0, 9.0, 0.0, 2.0]
TEMPERATURE = 0.05


@pytest.fixture
def scores() -> LegScores:
    generator = torch.Generator().manual_seed(0)
    return LegScores(*(torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(3)))


TARGETS = torch.tensor([0, 2, 5, 2])


def oracle_loss(checkpoint: Path, **options: Any) -> float:
    """FlagEmbedding's own value of the batch, its dropout off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        parts: dict[str, Any] = {"model": AutoModel.from_pretrained(checkpoint, add_pooling_layer=False)}
        for name, outputs in (("colbert_linear", 16), ("sparse_linear", 1)):
            parts[name] = torch.nn.Linear(16, outputs)
            parts[name].load_state_dict(torch.load(checkpoint / f"{name}.pt", weights_only=True))
        teacher = options.pop("teacher", None)
        model = EncoderOnlyEmbedderM3Model(
            parts, tokenizer=tokenizer, temperature=TEMPERATURE, normalize_embeddings=True, **options
        )
        model.train()
        model.model.eval()
        batch = [tokenizer(texts, padding=True, return_tensors="pt") for texts in (QUERIES, PASSAGES)]
        return float(model(*batch, teacher_scores=teacher).loss)


def our_scores(checkpoint: Path) -> LegScores:
    trainee = load_trainee(str(checkpoint), TrainingSettings(), device=torch.device("cpu"))
    queries, passages = (
        trainee.represent(trainee.pack(texts, role)) for texts, role in ((QUERIES, "query"), (PASSAGES, "document"))
    )
    return leg_scores(queries, passages).scaled(TEMPERATURE)


@pytest.mark.parametrize("distill", [False, True])
def test_equals_the_reference(small_checkpoint: Path, distill: bool) -> None:
    expected = oracle_loss(small_checkpoint, use_self_distill=distill)
    found = m3_loss(our_scores(small_checkpoint), torch.tensor([0, 3, 6]), distill=distill)
    assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distill", [False, True])
def test_equals_the_reference_with_a_teacher(small_checkpoint: Path, distill: bool) -> None:
    expected = oracle_loss(small_checkpoint, use_self_distill=distill, kd_loss_type="kl_div", teacher=TEACHER)
    teacher = Teacher(torch.arange(9).view(3, 3), torch.tensor(TEACHER).view(3, 3))
    found = m3_losses(our_scores(small_checkpoint), torch.tensor([0, 3, 6]), distill=distill, teacher=teacher)
    assert float(found.total) == pytest.approx(expected, abs=1e-5)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def brute_info_nce(scores: torch.Tensor) -> float:
    return float(-np.log(softmax(scores.numpy())[np.arange(4), TARGETS]).mean())


def test_parts_follow_the_paper(scores: LegScores) -> None:
    ensemble = scores.dense + 0.3 * scores.lexical + scores.colbert
    distilled = [float(-(softmax(ensemble.numpy()) * np.log(softmax(s.numpy()))).sum(1).mean()) for s in scores]
    dense, lexical, colbert, all_three = (brute_info_nce(s) for s in (*scores, ensemble))
    plain = (dense + 0.1 * lexical + colbert + all_three) / 4
    taught = (distilled[0] + 0.1 * distilled[1] + distilled[2]) / 3
    assert contrastive_loss(scores, TARGETS).item() == pytest.approx(plain)
    assert distillation_loss(scores).item() == pytest.approx(taught)
    found = m3_losses(scores, TARGETS)
    assert [part.item() for part in found] == pytest.approx([(plain + taught) / 2, dense, lexical, colbert, all_three])
    assert m3_loss(scores, TARGETS, distill=False).item() == pytest.approx(plain)


def test_the_ensemble_is_no_pupil_of_distillation(scores: LegScores) -> None:
    legs = LegScores(*(s.clone().requires_grad_() for s in scores))
    distillation_loss(legs).backward()
    # With the teacher held still, the gradient of a leg is (its softmax - the teacher's) / queries.
    teacher = softmax(scores.ensemble().numpy())
    for leg, weight in zip(legs, (1, 0.1, 1), strict=True):
        expected = weight / 3 * (softmax(leg.detach().numpy()) - teacher) / 4
        assert leg.grad is not None
        assert np.abs(leg.grad.numpy() - expected).max() < 1e-12


def test_multiple_negatives_ranking_looks_both_ways(scores: LegScores) -> None:
    matrix, targets = scores.dense, torch.tensor([0, 2, 5, 1])
    back = softmax(matrix[:, targets].T.numpy())
    expected = (float(info_nce(matrix, targets)) - np.log(np.diagonal(back)).mean()) / 2
    assert multiple_negatives_ranking(matrix, targets).item() == pytest.approx(expected)


def test_questions_of_one_passage_do_not_count_as_wrong_for_it() -> None:
    matrix = torch.tensor([[30.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    assert multiple_negatives_ranking(matrix, torch.tensor([0, 0, 1])).item() == pytest.approx(0, abs=1e-6)


def test_triplet_is_the_mean_over_wrong_passages(scores: LegScores) -> None:
    matrix = scores.dense.clone()
    matrix[0, 3] = MASKED
    costs = [
        max(0.0, 1.5 - float(matrix[q, target]) + float(matrix[q, p]))
        for q, target in enumerate(TARGETS.tolist())
        for p in range(6)
        if p != target and (q, p) != (0, 3)
    ]
    assert triplet(matrix, TARGETS, margin=1.5).item() == pytest.approx(sum(costs) / len(costs))
    assert triplet(torch.zeros(1, 1), torch.tensor([0])).item() == 0


def test_teacher_loss_of_groups_of_any_size(scores: LegScores) -> None:
    teacher = Teacher(torch.tensor([[0, 1, 2], [2, 3, 0]]), torch.tensor([[2.0, 0.0, -1.0], [1.0, 0.5, -torch.inf]]))
    matrix = scores.dense[:2]
    expected = np.mean(
        [
            -(softmax(wanted) * np.log(softmax(matrix[row, columns].numpy()))).sum()
            for row, columns, wanted in ((0, [0, 1, 2], np.array([2.0, 0, -1])), (1, [2, 3], np.array([1.0, 0.5])))
        ]
    )
    assert teacher_loss(matrix, teacher).item() == pytest.approx(expected)


def test_masked_passages_count_for_nothing(scores: LegScores) -> None:
    hidden = torch.zeros(4, 6, dtype=torch.bool)
    hidden[:, 4] = True
    without = LegScores(*(torch.cat([s[:, :4], s[:, 5:]], 1) for s in scores))
    moved = torch.tensor([0, 2, 4, 2])
    masked = m3_losses(scores.masked(hidden), TARGETS)
    assert [p.item() for p in masked] == pytest.approx([p.item() for p in m3_losses(without, moved)])


def test_losses_are_named() -> None:
    assert leg_loss("mnr") is multiple_negatives_ranking
    with pytest.raises(ConfigurationError, match=r"loss is 'hinge', must be one of infonce, mnr, triplet"):
        leg_loss("hinge")
