"""Attention over packed texts: padding for gradients changes neither numbers nor gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m3rag.encoder.attention import attention_over

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [[9, 8, 8, 3, 1], [5, 5, 5], [1], [100, 90, 12, 12, 11, 2]])
def test_gradients_are_those_of_the_plain_formula(lengths: list[int]) -> None:
    torch.manual_seed(len(lengths))
    qkv = torch.randn(sum(lengths), 3, 2, 4, requires_grad=True)
    towards = torch.randn(sum(lengths), 8)
    expected = _one_text_at_a_time(qkv, lengths)
    (wanted,) = torch.autograd.grad((expected * towards).sum(), qkv)
    found = attention_over(lengths, device=CPU, dtype=torch.float32, head_dim=4)(qkv)
    (gradient,) = torch.autograd.grad((found * towards).sum(), qkv)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        without = attention_over(lengths, device=CPU, dtype=torch.float32, head_dim=4)(qkv)
    torch.testing.assert_close(without, expected, atol=1e-6, rtol=1e-5)


def _one_text_at_a_time(qkv: Tensor, lengths: list[int]) -> Tensor:
    parts = []
    for text in torch.split(qkv, lengths):
        query, key, value = text.permute(1, 2, 0, 3)  # (heads, tokens, head_dim)
        shares = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, -1)
        parts.append((shares @ value).permute(1, 0, 2).flatten(1))
    return torch.cat(parts)


@pytest.mark.parametrize("gradients", [True, False])
def test_rows_behind_the_texts_come_back_as_zeros_and_change_nothing(gradients: bool) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(12, 3, 2, 4)
    with torch.set_grad_enabled(gradients):
        attend = attention_over([5, 3, 3], device=CPU, dtype=torch.float32, head_dim=4)
        mixed = attend(qkv)
        assert torch.equal(mixed[:11], attend(qkv[:11]))
    assert torch.equal(mixed[11:], torch.zeros(1, 8))
