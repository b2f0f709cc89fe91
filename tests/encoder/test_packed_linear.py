"""Weights laid out for a CPU's kernels: the same products, in every form that the layers ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, XLMRobertaConfig

from m3rag.encoder import packed_linear
from m3rag.encoder.checkpoint import Checkpoint, Recipe
from m3rag.encoder.packed_linear import FUSED, PackedLinear, filled, pack_products
from m3rag.encoder.transformer import ACTIVATIONS, Transformer, load_transformer

CPU = torch.device("cpu")

needs_packing = pytest.mark.skipif(
    not packed_linear._is_supported(torch.float32), reason="torch has no packed products for this processor"
)


@needs_packing
@pytest.mark.parametrize("tokens", [0, 1, 7, 64, 300, 9000])
@pytest.mark.parametrize("activation", [None, *FUSED])
def test_a_packed_product_is_the_product(activation: str | None, tokens: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80)
    states = torch.randn(tokens, 48)
    with torch.inference_mode():
        expected = linear(states)
        if activation is not None:
            expected = ACTIVATIONS[activation](expected)
        assert torch.allclose(PackedLinear(linear, activation)(states), expected, atol=2e-6)


@pytest.mark.skipif(
    not packed_linear._is_supported(torch.bfloat16),
    reason="torch has no packed products in bfloat16 for this processor",
)
def test_a_packed_product_in_bfloat16_is_as_near_as_torchs_own() -> None:
    torch.manual_seed(0)
    linear, states = nn.Linear(48, 80), torch.randn(70, 48)
    half = nn.Linear(48, 80).to(torch.bfloat16)
    half.load_state_dict(linear.state_dict())
    with torch.inference_mode():
        packed = PackedLinear(half)(states.bfloat16())
        assert packed.dtype == torch.bfloat16
        assert torch.allclose(packed.float(), linear(states), atol=0.03)


@needs_packing
def test_states_that_lie_apart_in_memory_are_multiplied_too() -> None:
    linear = nn.Linear(6, 4)
    states = torch.randn(6, 9).T
    with torch.inference_mode():
        assert torch.allclose(PackedLinear(linear)(states), linear(states), atol=1e-6)


def test_products_are_made_for_few_numbers_of_tokens_and_little_in_vain() -> None:
    made_for = [filled(tokens) for tokens in range(8193)]
    assert len(set(made_for)) == 37
    assert made_for == sorted(made_for)
    assert all(0 <= size - tokens < max(16, 0.25 * tokens) for tokens, size in enumerate(made_for))
    assert all(filled(size) == size for size in made_for)


def test_every_activation_of_the_network_has_its_packed_form() -> None:
    assert FUSED.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_packed_network_gives_the_states_of_a_plain_one(tmp_path: Path, activation: str) -> None:
    plain, packed = network(tmp_path, activation), network(tmp_path, activation)
    pack_products(packed)
    given = torch.randint(5, 300, (23,)), torch.cat([torch.arange(14), torch.arange(9)]), [14, 9]
    with torch.inference_mode():
        assert torch.allclose(packed(*given), plain(*given), atol=1e-5)
    assert packed.dtype == plain.dtype
    on_this_machine = packed_linear._is_supported(torch.float32)
    assert any(isinstance(part, PackedLinear) for part in packed.modules()) is on_this_machine


@pytest.mark.parametrize("machine", ["arm64", "aarch64"])
def test_a_processor_on_which_it_was_not_measured_keeps_plain_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(packed_linear.platform, "machine", lambda: machine)
    model = network(tmp_path, "gelu")
    pack_products(model)
    assert not any(isinstance(part, PackedLinear) for part in model.modules())


def test_float16_keeps_plain_products() -> None:
    assert not packed_linear._is_supported(torch.float16)


def network(folder: Path, activation: str) -> Transformer:
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
        hidden_act=activation,
    )
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)
    checkpoint = Checkpoint("random", folder, Recipe())
    return load_transformer(checkpoint, dtype=torch.float32, device=CPU).eval().requires_grad_(False)
