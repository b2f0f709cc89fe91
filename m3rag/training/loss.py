"""The losses of M3: contrastive on each leg and on their sum, and self-knowledge distillation.

Section 3.3 of arXiv 2402.03216. All take score matrices `(queries, passages)` already divided by
the temperature, and `targets` `(queries,)`, the column of each query's positive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from m3rag.errors import ConfigurationError

LossName = Literal["infonce", "mnr", "triplet"]
LegLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss of one score matrix and its targets."""

ENSEMBLE_WEIGHTS = (1.0, 0.3, 1.0)
"""Of dense, lexical and ColBERT in the sum of the three."""

LEG_LOSS_WEIGHTS = (1.0, 0.1, 1.0)
"""Of dense, lexical and ColBERT in both losses: a new lexical head starts out noisy."""

MASKED = -1e9
"""The score of a passage that is no negative of a query: far below any other, and still finite."""


class LegScores(NamedTuple):
    """Scores of the three legs, each `(queries, passages)`."""

    dense: Tensor
    lexical: Tensor
    colbert: Tensor

    def ensemble(self) -> Tensor:
        """The integration score with the paper's weights (1, 0.3, 1)."""
        dense, lexical, colbert = ENSEMBLE_WEIGHTS
        return dense * self.dense + lexical * self.lexical + colbert * self.colbert

    def scaled(self, temperature: float) -> LegScores:
        """The scores divided by a temperature."""
        return LegScores(*(score / temperature for score in self))

    def masked(self, hidden: Tensor) -> LegScores:
        """The scores with `MASKED` where `hidden` `(queries, passages)` is True."""
        return LegScores(*(score.masked_fill(hidden, MASKED) for score in self))


class Teacher(NamedTuple):
    """What a cross-encoder thinks of some passages of each query.

    columns: `(queries, group)` int64, the columns it scored. scores: `(queries, group)`, -inf where a
    query has fewer.
    """

    columns: Tensor
    scores: Tensor


def info_nce(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each query's passages."""
    return F.cross_entropy(scores, targets)


def multiple_negatives_ranking(scores: Tensor, targets: Tensor) -> Tensor:
    """InfoNCE in both directions: each positive passage must find its query too."""
    forth = F.cross_entropy(scores, targets)
    # Other questions of the same passage are no wrong ones.
    twins = (targets[:, None] == targets).fill_diagonal_(False)
    back = F.cross_entropy(
        scores[:, targets].T.masked_fill(twins, MASKED), torch.arange(len(targets), device=scores.device)
    )
    return (forth + back) / 2


def triplet(scores: Tensor, targets: Tensor, *, margin: float = 5.0) -> Tensor:
    """The mean over all wrong passages of `max(0, margin - positive + wrong)`.

    Args:
        scores: `(queries, passages)`.
        targets: `(queries,)`.
        margin: In units of the scaled score: 5 is .1 of a cosine at temperature .02.
    """
    positive = scores.gather(1, targets[:, None])
    wrong = (scores > MASKED / 2).scatter(1, targets[:, None], False)
    costs = torch.relu(margin - positive + scores) * wrong
    return costs.sum() / wrong.sum().clamp(min=1)


LOSSES: dict[LossName, LegLoss] = {"infonce": info_nce, "mnr": multiple_negatives_ranking, "triplet": triplet}


def leg_loss(name: str) -> LegLoss:
    """The loss of a name.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    if name not in LOSSES:
        raise ConfigurationError(f"loss is {name!r}, must be one of {', '.join(get_args(LossName))}")
    return LOSSES[name]


def teacher_loss(scores: Tensor, teacher: Teacher) -> Tensor:
    """Cross-entropy of the passages that a teacher scored against the softmax of its scores.

    It differs from the Kullback-Leibler divergence by the teacher's entropy, which no weight moves.
    """
    wanted = torch.softmax(teacher.scores, dim=-1)
    absent = torch.isinf(teacher.scores)
    given = scores.gather(1, teacher.columns).masked_fill(absent, MASKED)
    return -(torch.log_softmax(given, dim=-1) * wanted).sum(-1).mean()


def contrastive_losses(
    scores: LegScores, targets: Tensor, *, loss: LegLoss = info_nce, teacher: Teacher | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss of dense, lexical, ColBERT and of their sum, each plus `teacher_loss` if there is a teacher."""
    both = partial(_with_teacher, loss=loss, teacher=teacher)
    dense, lexical, colbert = scores
    return both(dense, targets), both(lexical, targets), both(colbert, targets), both(scores.ensemble(), targets)


def _with_teacher(scores: Tensor, targets: Tensor, *, loss: LegLoss, teacher: Teacher | None) -> Tensor:
    found = loss(scores, targets)
    return found if teacher is None else found + teacher_loss(scores, teacher)


def contrastive_loss(
    scores: LegScores, targets: Tensor, *, loss: LegLoss = info_nce, teacher: Teacher | None = None
) -> Tensor:
    """`L = (Ld + 0.1 Ll + Lc + Lens) / 4`, each an InfoNCE unless `loss` is another."""
    return _mean_of(contrastive_losses(scores, targets, loss=loss, teacher=teacher))


def _mean_of(losses: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    weighted = [w * leg for w, leg in zip((*LEG_LOSS_WEIGHTS, 1.0), losses, strict=True)]
    return torch.stack(weighted).sum() / 4


def distillation_loss(scores: LegScores) -> Tensor:
    """`L' = (L'd + 0.1 L'l + L'c) / 3`, cross-entropy against the softmax of the ensemble."""
    teacher = torch.softmax(scores.ensemble().detach(), dim=-1)
    legs = [w * F.cross_entropy(s, teacher) for w, s in zip(LEG_LOSS_WEIGHTS, scores, strict=True)]
    return torch.stack(legs).sum() / 3


class M3Loss(NamedTuple):
    """The loss to minimise, and the contrastive loss of each leg and of their sum, for people."""

    total: Tensor
    dense: Tensor
    lexical: Tensor
    colbert: Tensor
    ensemble: Tensor


def m3_losses(
    scores: LegScores,
    targets: Tensor,
    *,
    distill: bool = True,
    loss: LegLoss = info_nce,
    teacher: Teacher | None = None,
) -> M3Loss:
    """`(L + L') / 2`, or `L` alone without distillation, and its parts."""
    legs = contrastive_losses(scores, targets, loss=loss, teacher=teacher)
    total = _mean_of(legs)
    if distill:
        total = (total + distillation_loss(scores)) / 2
    return M3Loss(total, *legs)


def m3_loss(scores: LegScores, targets: Tensor, *, distill: bool = True) -> Tensor:
    """`(L + L') / 2`, or `L` alone without distillation."""
    return m3_losses(scores, targets, distill=distill).total
