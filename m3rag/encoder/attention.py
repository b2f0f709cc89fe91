"""Attention inside each text of a packed batch, without padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from m3rag.encoder.transfer import to_device

Attention = Callable[[Tensor], Tensor]
"""`(tokens, 3, heads, head_dim)` queries, keys and values to `(tokens, heads * head_dim)`; rows behind the texts to
zeros."""

PADDED = 1.15
"""The longest of the texts that share a padded call, as a multiple of their shortest."""


def attention_over(lengths: list[int], *, device: torch.device, dtype: torch.dtype, head_dim: int) -> Attention:
    """Attention for texts of these lengths that lie one after the other.

    On a CUDA device in half precision one varlen kernel takes all texts. Elsewhere neighbours of the
    same length share a call; a batch is sorted by length, so these are few. For gradients on a CPU,
    neighbours of like length are padded: torch's kernel for that direction is slow on many small calls.

    Args:
        lengths: Tokens of each text.
        device: Where they are.
        dtype: Of queries, keys and values.
        head_dim: Their last dimension.
    """
    if device.type == "cuda" and dtype in {torch.float16, torch.bfloat16} and _fits_varlen(head_dim):
        varlen = _varlen_kernel(device)
        if varlen is not None:
            return _varlen_attention(lengths, varlen, device)
    if device.type == "cpu" and lengths and torch.is_grad_enabled():
        return _padded_attention(lengths)
    return _grouped_attention(lengths)


def _grouped_attention(lengths: list[int]) -> Attention:
    groups = [(length, len(list(same))) for length, same in groupby(lengths)]

    def attend(qkv: Tensor) -> Tensor:
        heads, head_dim = qkv.shape[2:]
        parts, start = [], 0
        for length, count in groups:
            end = start + length * count
            query, key, value = qkv[start:end].view(count, length, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value)  # (count, heads, length, head_dim)
            parts.append(mixed.transpose(1, 2).reshape(end - start, heads * head_dim))
            start = end
        return _joined(parts, qkv)

    return attend


def _padded_attention(lengths: list[int]) -> Attention:
    groups = [_Padded.of(lengths[first:end]) for first, end in _like_lengths(lengths)]
    tokens = [group.tokens for group in groups]

    def attend(qkv: Tensor) -> Tensor:
        packed = torch.split(qkv[: sum(tokens)], tokens)
        return _joined([group.attend(part) for group, part in zip(groups, packed, strict=True)], qkv)

    return attend


def _joined(parts: list[Tensor], qkv: Tensor) -> Tensor:
    """What the groups of texts give, and zeros for the rows behind the texts."""
    rest = len(qkv) - sum(map(len, parts))
    if rest or not parts:
        parts = [*parts, qkv.new_zeros(rest, qkv.shape[2] * qkv.shape[3])]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _like_lengths(lengths: list[int]) -> list[tuple[int, int]]:
    """Neighbours of which the longest is at most `PADDED` times the shortest, as (first, end)."""
    found, first = [], 0
    low = high = lengths[0]
    for i, length in enumerate(lengths):
        low, high = min(low, length), max(high, length)
        if high > PADDED * low:
            found.append((first, i))
            first, low, high = i, length, length
    return [*found, (first, len(lengths))]


class _Padded(NamedTuple):
    """Texts of like length.

    Attributes:
        at: `(texts, longest)` each place's token; beyond its end a text's last, again and again.
        hidden: `(texts, 1, 1, longest)` 0, and minus infinity beyond the end.
        kept: `(tokens,)` which of the padded places are tokens.
        tokens: Of all texts, without padding.
    """

    at: Tensor
    hidden: Tensor
    kept: Tensor
    tokens: int

    @classmethod
    def of(cls, lengths: list[int]) -> _Padded:
        ends = torch.tensor(lengths)
        places = torch.arange(max(lengths))
        starts = torch.cumsum(ends, 0) - ends
        beyond = places >= ends[:, None]
        hidden = torch.zeros(beyond.shape).masked_fill(beyond, -torch.inf)
        at = starts[:, None] + torch.minimum(places, ends[:, None] - 1)
        return cls(at, hidden[:, None, None], (~beyond).flatten().nonzero()[:, 0], sum(lengths))

    def attend(self, qkv: Tensor) -> Tensor:
        """`(tokens, 3, heads, head_dim)` to `(tokens, heads * head_dim)`."""
        heads, head_dim = qkv.shape[2:]
        padded = qkv[self.at.flatten()] if len(self.kept) < self.at.numel() else qkv
        query, key, value = padded.view(*self.at.shape, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
        similarities = (query * head_dim**-0.5) @ key.transpose(-1, -2)
        shares = (similarities + self.hidden.to(similarities.dtype)).softmax(-1)
        mixed: Tensor = shares.to(value.dtype) @ value
        return mixed.transpose(1, 2).reshape(-1, heads * head_dim)[self.kept]


def _varlen_attention(lengths: list[int], kernel: Callable[..., Any], device: torch.device) -> Attention:
    starts = to_device(np.array([0, *accumulate(lengths)], np.int32), device)
    longest = max(lengths, default=0)

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = qkv.unbind(1)
        mixed: Tensor = kernel(query, key, value, starts, starts, longest, longest)
        return mixed.flatten(1)

    return attend


def _fits_varlen(head_dim: int) -> bool:
    # Other sizes are padded by torch's ordinary attention, and refused by this kernel.
    return head_dim % 8 == 0 and head_dim <= 256


@cache  # as many entries as devices
def _varlen_kernel(device: torch.device) -> Callable[..., Any] | None:
    # In torch since 2.10, for devices with FlashAttention (compute capability 8.0 and up).
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415
    except ImportError:
        return None
    return varlen_attn
