"""What the network gives for texts in training, with gradients, and the scores of the three legs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from m3rag.training.loss import LegScores

SIMILARITIES = 1 << 26
"""Token similarities held at a time, 256 MB; beyond that they are computed again for the gradient."""


class Texts(NamedTuple):
    """Representations of `n` texts, token by token one text after the other.

    Attributes:
        dense: `(n, D)` float32 of unit length.
        colbert: `(tokens, c)` float32 of unit length.
        lexical: `(tokens,)` float32 >= 0, before the maximum of a token's places; 0 on tokens that never
            carry a weight.
        ids: `(tokens,)` int64.
        lengths: `(n,)` int64, tokens of each text.
    """

    dense: Tensor
    colbert: Tensor
    lexical: Tensor
    ids: Tensor
    lengths: Tensor

    @property
    def owners(self) -> Tensor:
        """`(tokens,)` the text that each token belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)

    def take(self, rows: Tensor) -> Texts:
        """Some of the texts, in the order given."""
        at = token_rows(self.lengths, rows)
        return Texts(self.dense[rows], self.colbert[at], self.lexical[at], self.ids[at], self.lengths[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[Texts]) -> Texts:
        """The texts of all parts, one after the other."""
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def token_rows(lengths: Tensor, texts: Tensor) -> Tensor:
    """Where the tokens of some texts stand, `(tokens,)`, if all texts lie one after the other."""
    counts, starts = lengths[texts], (torch.cumsum(lengths, 0) - lengths)[texts]
    first = torch.cumsum(counts, 0) - counts
    return torch.arange(int(counts.sum()), device=lengths.device) + torch.repeat_interleave(starts - first, counts)


def leg_scores(queries: Texts, passages: Texts) -> LegScores:
    """The scores that `m3rag.scoring` gives, `(queries, passages)` float32 a leg, before any temperature.

    Unlike FlagEmbedding's in training, padding takes no part in the maximum of ColBERT: a passage is
    scored alike whatever is in its batch.
    """
    with torch.autocast(queries.dense.device.type, enabled=False):
        dense = queries.dense @ passages.dense.T
        return LegScores(dense, _lexical_scores(queries, passages), _colbert_scores(queries, passages))


def _lexical_scores(queries: Texts, passages: Texts) -> Tensor:
    vocabulary, columns = torch.unique(torch.cat([queries.ids, passages.ids]), return_inverse=True)
    split = len(queries.ids)
    q = _bag(queries, columns[:split], len(vocabulary))
    p = _bag(passages, columns[split:], len(vocabulary))
    return q @ p.T


def _bag(texts: Texts, columns: Tensor, width: int) -> Tensor:
    flat = texts.lexical.new_zeros(len(texts.lengths) * width)
    return flat.scatter_reduce(0, texts.owners * width + columns, texts.lexical, "amax").view(-1, width)


def _colbert_scores(queries: Texts, passages: Texts) -> Tensor:
    ends = torch.cumsum(passages.lengths, 0)
    tokens = max(SIMILARITIES // max(len(queries.ids), 1), 1)
    blocks, start = [], 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        end = max(int(torch.searchsorted(ends, before + tokens, right=True)), start + 1)
        blocks.append((before, int(ends[end - 1]), start, end))
        start = end
    parts = []
    for first, last, start, end in blocks:
        block = (queries.colbert, passages.colbert[first:last], passages.lengths[start:end])
        parts.append(_best(*block) if len(blocks) == 1 else checkpoint(_best, *block, use_reentrant=False))
    best = torch.cat(parts, 1)  # (query tokens, passages)
    summed = best.new_zeros(len(queries.lengths), best.shape[1]).index_add(0, queries.owners, best)
    return summed / queries.lengths[:, None]


def _best(queries: Tensor, passages: Tensor, lengths: Tensor) -> Tensor:
    """The best similarity of each query token in each passage: `(query tokens, passages)`."""
    places = torch.arange(int(lengths.max()), device=lengths.device)
    starts = torch.cumsum(lengths, 0) - lengths
    # Shorter passages repeat their last token, which changes no maximum and needs no mask.
    at = starts[:, None] + torch.minimum(places[None, :], lengths[:, None] - 1)  # (passages, longest)
    similarities = (queries @ passages[at.flatten()].T).view(len(queries), *at.shape)
    return similarities.max(-1).values


def unit(vectors: Tensor) -> Tensor:
    """Vectors of unit length in float32."""
    return F.normalize(vectors.float(), dim=-1)
