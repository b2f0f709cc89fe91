"""The losses of M3: contrastive on each leg and on their sum, and self-knowledge distillation.

Section 3.3 of arXiv 2402.03216. All take score matrices `(queries, passages)` already divided by
the temperature, and `targets` `(queries,)`, the column of each query's positive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class LegScores(NamedTuple):
    """Scores of the three legs, each `(queries, passages)`."""

    dense: Tensor
    lexical: Tensor
    colbert: Tensor

    def ensemble(self) -> Tensor:
        """The integration score with the paper's weights (1, 0.3, 1)."""
        return self.dense + 0.3 * self.lexical + self.colbert


LEG_LOSS_WEIGHTS = (1.0, 0.1, 1.0)
"""Of dense, lexical and ColBERT in both losses: a new lexical head starts out noisy."""


def contrastive_loss(scores: LegScores, targets: Tensor) -> Tensor:
    """`L = (Ld + 0.1 Ll + Lc + Lens) / 4`, each an InfoNCE."""
    legs = sum(w * F.cross_entropy(s, targets) for w, s in zip(LEG_LOSS_WEIGHTS, scores, strict=True))
    return (legs + F.cross_entropy(scores.ensemble(), targets)) / 4


def distillation_loss(scores: LegScores) -> Tensor:
    """`L' = (L'd + 0.1 L'l + L'c) / 3`, cross-entropy against the softmax of the ensemble."""
    teacher = torch.softmax(scores.ensemble().detach(), dim=-1)
    legs = [w * F.cross_entropy(s, teacher) for w, s in zip(LEG_LOSS_WEIGHTS, scores, strict=True)]
    return torch.stack(legs).sum() / 3


def m3_loss(scores: LegScores, targets: Tensor, *, distill: bool = True) -> Tensor:
    """`(L + L') / 2`, or `L` alone without distillation."""
    loss = contrastive_loss(scores, targets)
    return (loss + distillation_loss(scores)) / 2 if distill else loss
