"""Attention inside each text of a packed batch, without padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attention = Callable[[Tensor], Tensor]
"""`(tokens, 3, heads, head_dim)` queries, keys and values to `(tokens, heads * head_dim)`."""


def attention_over(lengths: list[int], *, device: torch.device, dtype: torch.dtype) -> Attention:
    """Attention for texts of these lengths that lie one after the other.

    On a CUDA device in half precision one varlen kernel takes all texts. Elsewhere neighbours of the
    same length share a call; a batch is sorted by length, so these are few.
    """
    varlen = _varlen_kernel() if device.type == "cuda" and dtype in {torch.float16, torch.bfloat16} else None
    if varlen is not None:
        return _varlen_attention(lengths, varlen, device)
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
        return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else qkv.new_zeros(0, heads * head_dim)

    return attend


def _varlen_attention(lengths: list[int], kernel: Callable[..., Any], device: torch.device) -> Attention:
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    longest = max(lengths, default=0)

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = qkv.unbind(1)
        mixed: Tensor = kernel(query, key, value, starts, starts, longest, longest)
        return mixed.flatten(1)

    return attend


@lru_cache(maxsize=1)
def _varlen_kernel() -> Callable[..., Any] | None:
    # In torch since 2.10, for devices with FlashAttention (compute capability 8.0 and up).
    if torch.cuda.get_device_capability() < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415
    except ImportError:
        return None
    return varlen_attn
