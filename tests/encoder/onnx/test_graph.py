"""The graph computes what torch computes, for every architecture and shape of batch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from m3rag.encoder.batching import Batch
from m3rag.encoder.model import M3Model
from m3rag.encoder.onnx.session import OnnxNetwork

TOLERANCE = 1e-5
Both = Callable[..., tuple[M3Model, OnnxNetwork]]
Packed = Callable[..., Batch]


def worst(networks: tuple[M3Model, OnnxNetwork], batch: Batch) -> float:
    """The largest difference in the vectors and weights that are given out."""
    with torch.inference_mode():
        expected, found = (network(batch) for network in networks)
    differences = [
        F.normalize(found.dense, dim=-1) - F.normalize(expected.dense, dim=-1),
        F.normalize(found.colbert, dim=-1) - F.normalize(expected.colbert, dim=-1),
        found.lexical - expected.lexical,
    ]
    for name in ("dense", "lexical", "colbert"):
        assert getattr(found, name).shape == getattr(expected, name).shape
        assert getattr(found, name).dtype == torch.float32
    return max(float(difference.abs().max()) for difference in differences)


@pytest.fixture(scope="module")
def tiny(both: Both, tiny_checkpoint: Path) -> tuple[M3Model, OnnxNetwork]:
    return both(tiny_checkpoint)


@pytest.fixture(scope="module")
def mini(both: Both, mini_folder: Path) -> tuple[M3Model, OnnxNetwork]:
    return both(mini_folder)


@pytest.fixture(scope="module")
def texts(multilingual_texts: list[str]) -> list[str]:
    odd = ["", " \n\t ", "a", "🦆🦆 émoji 👩‍👩‍👧", "x" * 300, "<mask> in the middle", "的" * 50, "a <pad> b <pad>"]
    return [*multilingual_texts[::2], *odd]


def test_texts_of_all_lengths_in_any_order(
    tiny: tuple[M3Model, OnnxNetwork], packed: Packed, tiny_checkpoint: Path, texts: list[str]
) -> None:
    batch = packed(tiny_checkpoint, [*texts, "several ducks swim " * 3000, "after the longest"])
    assert batch.lengths.min() == 2
    assert batch.lengths.max() == 8192
    assert worst(tiny, batch) <= TOLERANCE


def test_mini(mini: tuple[M3Model, OnnxNetwork], packed: Packed, mini_folder: Path, texts: list[str]) -> None:
    batch = packed(mini_folder, [*texts, "several ducks swim " * 300], dropped=3, pooling="mean")
    assert batch.lengths.max() == 512
    assert worst(mini, batch) <= TOLERANCE


@pytest.mark.parametrize(
    "options", [{"pooling": "cls"}, {"pooling": "mean"}, {"pooling": "last_token"}, {"mcls": True}]
)
def test_every_pooling(
    tiny: tuple[M3Model, OnnxNetwork], packed: Packed, tiny_checkpoint: Path, options: dict[str, Any]
) -> None:
    batch = packed(tiny_checkpoint, ["Ducks swim.", "duck " * 700, "", "Where do they go?"], **options)
    assert worst(tiny, batch) <= TOLERANCE


@pytest.mark.parametrize("rows", [[0], [3], [2, 2, 2], [1, 0, 3, 2], [0, 1, 2, 3, 0, 1, 2, 3]])
def test_the_company_of_a_text_does_not_change_it(
    tiny: tuple[M3Model, OnnxNetwork], packed: Packed, tiny_checkpoint: Path, rows: list[int]
) -> None:
    batch = packed(tiny_checkpoint, ["Ducks swim.", "duck " * 100, "", "the geese of this pond " * 40])
    assert worst(tiny, batch.take(np.array(rows))) <= TOLERANCE


def test_texts_without_a_kept_token(tiny: tuple[M3Model, OnnxNetwork], packed: Packed, tiny_checkpoint: Path) -> None:
    batch = packed(tiny_checkpoint, ["", "a"], dropped=8)
    assert not batch.keep.any()
    dense, lexical, colbert = tiny[1](batch)
    assert dense.isfinite().all()
    assert (len(lexical), tuple(colbert.shape)) == (0, (0, 64))


def test_no_texts(tiny: tuple[M3Model, OnnxNetwork], packed: Packed, tiny_checkpoint: Path) -> None:
    dense, lexical, colbert = tiny[1](packed(tiny_checkpoint, []))
    assert (tuple(dense.shape), len(lexical), tuple(colbert.shape)) == ((0, 64), 0, (0, 64))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bert", {"hidden_act": "gelu_new", "type_vocab_size": 2}),
        ("roberta", {"hidden_act": "relu", "num_attention_heads": 8}),
        ("xlm-roberta", {"intermediate_size": 96, "num_hidden_layers": 1}),
    ],
)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_every_architecture_and_storage(  # noqa: PLR0917 - fixtures and parameters
    both: Both,
    packed: Packed,
    tiny_checkpoint: Path,
    tmp_path: Path,
    model_type: str,
    options: dict[str, Any],
    stored: torch.dtype,
) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(3)
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": 250002,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 130,
            "pad_token_id": 1,
            "initializer_range": 0.3,
            **options,
        },
    )
    shutil.copy(tiny_checkpoint / "tokenizer.json", tmp_path)
    AutoModel.from_config(config, add_pooling_layer=False).to(stored).save_pretrained(tmp_path)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", 16)):
        torch.save(torch.nn.Linear(32, outputs).state_dict(), tmp_path / name)
    batch = packed(tmp_path, ["Ducks swim.", "", "several ducks " * 80, "<pad><pad> a <pad> b"])
    assert batch.lengths.max() == 128
    assert worst(both(tmp_path), batch) <= TOLERANCE
