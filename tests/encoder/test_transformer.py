"""The backbone against transformers' own, for each architecture it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, CamembertConfig, RobertaConfig, XLMRobertaConfig

from m3rag.encoder.batching import Batch, pack, token_numbers
from m3rag.encoder.checkpoint import Checkpoint, Recipe
from m3rag.encoder.device import choose_dtype
from m3rag.encoder.transfer import to_device
from m3rag.encoder.transformer import Architecture, Transformer, load_transformer
from m3rag.errors import ConfigurationError, ModelError

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 4000,
    "initializer_range": 0.2,
}
CPU = torch.device("cpu")


def checkpoint_of(folder: Path, model: Any | None = None, **save: Any) -> Checkpoint:
    if model is not None:
        model.save_pretrained(folder, **save)
    return Checkpoint("random", folder, Recipe())


def random_batch(lengths: list[int]) -> Batch:
    rng = np.random.default_rng(3)
    # A few of the tokens are 1, the padding of all these models.
    return pack([np.array([0, *rng.integers(1, 50, n - 2), 2]) for n in lengths], dropped=1, pooling="cls")


def states_of(checkpoint: Checkpoint, batch: Batch) -> torch.Tensor:
    model = load_transformer(checkpoint, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        states: torch.Tensor = model(*given_to(model, batch))
    return states


def given_to(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    positions = token_numbers(batch.ids, batch.lengths, padding=model.shape.padding)
    return to_device(batch.ids, CPU), to_device(positions, CPU), batch.lengths.tolist()


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SHAPE, pad_token_id=1),
        BertConfig(**SHAPE, hidden_act="gelu_new"),
        RobertaConfig(**SHAPE, pad_token_id=1, type_vocab_size=1),
        CamembertConfig(**SHAPE, pad_token_id=1, hidden_act="relu"),
        XLMRobertaConfig(**SHAPE, pad_token_id=1, layer_norm_eps=1e-5),
    ],
    ids=lambda config: f"{config.model_type}-{config.hidden_act}",
)
def test_equals_transformers(tmp_path: Path, config: Any) -> None:
    torch.manual_seed(1)
    reference = AutoModel.from_config(config, add_pooling_layer=False).eval()
    # Lengths that share a group, that do not, and more than the feed-forward takes at a time.
    lengths = [2500, 17, 17, 17, 9, 2, 2]
    batch = random_batch(lengths)
    states = states_of(checkpoint_of(tmp_path, reference), batch)
    for text, found in zip(torch.split(torch.from_numpy(batch.ids), lengths), states.split(lengths), strict=True):
        with torch.inference_mode():
            expected = reference(input_ids=text[None]).last_hidden_state[0]
        assert (found - expected).abs().max() <= 1e-5


def test_sharded_and_prefixed_weights_load(tmp_path: Path) -> None:
    torch.manual_seed(1)
    from transformers import XLMRobertaForMaskedLM

    task = XLMRobertaForMaskedLM(XLMRobertaConfig(**SHAPE, pad_token_id=1))
    batch = random_batch([8, 5])
    plain = states_of(checkpoint_of(tmp_path / "plain", task.roberta), batch)
    sharded = checkpoint_of(tmp_path / "sharded", task, max_shard_size="20KB")
    assert len(list(sharded.folder.glob("model-*.safetensors"))) > 2
    assert torch.equal(states_of(sharded, batch), plain)


def test_a_half_precision_word_table_stays_small(tmp_path: Path) -> None:
    torch.manual_seed(1)
    reference = AutoModel.from_config(BertConfig(**SHAPE), add_pooling_layer=False).half()
    model = load_transformer(checkpoint_of(tmp_path, reference), dtype=torch.float32, device=CPU)
    assert model.words.weight.dtype == torch.float16
    assert {p.dtype for name, p in model.named_parameters() if name != "words.weight"} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deberta-v2"}, "model_type 'deberta-v2'.*must have one of bert, camembert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'.*absolute"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'.*gelu"),
        ({"num_hidden_layers": 3}, r"lack encoder\.layer\.2\.attention"),
        ({"intermediate_size": 64}, r"do not fit their config\.json.*layers\.0\.up\.weight"),
        ({"hidden_size": None}, r"config\.json lacks hidden_size"),
    ],
)
def test_what_cannot_be_computed_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    checkpoint = checkpoint_of(tmp_path, AutoModel.from_config(BertConfig(**SHAPE), add_pooling_layer=False))
    config = {**checkpoint.config(), **change}
    kept = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_transformer(checkpoint, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_damaged_weight_file_is_named(tmp_path: Path, damage: str) -> None:
    checkpoint = checkpoint_of(tmp_path, AutoModel.from_config(BertConfig(**SHAPE), add_pooling_layer=False))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100] if damage == "truncated" else b"not weights at all")
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged.*fetch it again"):
        load_transformer(checkpoint, dtype=torch.float32, device=CPU)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoint_of(tmp_path, AutoModel.from_config(BertConfig(**SHAPE), add_pooling_layer=False))

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Transformer, "load_state_dict", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_transformer(checkpoint, dtype=torch.float32, device=CPU)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    checkpoint = checkpoint_of(tmp_path, AutoModel.from_config(BertConfig(**SHAPE), add_pooling_layer=False))
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="not a text encoder's"):
        load_transformer(checkpoint, dtype=torch.float32, device=CPU)


def test_the_limit_is_the_positions_left_after_padding(tmp_path: Path) -> None:
    roberta = checkpoint_of(
        tmp_path, AutoModel.from_config(XLMRobertaConfig(**SHAPE, pad_token_id=1), add_pooling_layer=False)
    )
    assert Architecture.of(roberta).max_length == 3998


def test_half_precision_is_close_where_the_processor_has_it(tmp_path: Path) -> None:
    try:
        dtype = choose_dtype("bfloat16", CPU)
    except ConfigurationError as error:
        pytest.skip(f"this CPU computes no bfloat16: {error}")
    torch.manual_seed(1)
    reference = AutoModel.from_config(XLMRobertaConfig(**SHAPE, pad_token_id=1), add_pooling_layer=False)
    checkpoint = checkpoint_of(tmp_path, reference)
    batch = random_batch([40, 17, 17])
    exact = states_of(checkpoint, batch)
    model = load_transformer(checkpoint, dtype=dtype, device=CPU)
    with torch.inference_mode():
        states = model(*given_to(model, batch))
    assert states.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(states, exact).min() >= 0.999


def test_the_states_of_some_tokens_are_those_of_all(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, AutoModel.from_config(BertConfig(**SHAPE)))
    batch = random_batch([9, 5, 5, 2])
    model = load_transformer(checkpoint, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        given = given_to(model, batch)
        every = model(*given)
        some = model(*given, torch.tensor([19, 0, 9]))
    assert torch.allclose(some, every[[19, 0, 9]], atol=1e-6)
