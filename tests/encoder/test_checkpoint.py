from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from m3rag.encoder import M3Encoder
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.errors import ModelError


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "sparse_linear.pt", "colbert_linear.pt"]
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        M3Encoder(str(copy), device="cpu")


def test_parts_of_the_weights_without_their_index_are_not_taken_for_an_older_file(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match=r"has no .* or model\.safetensors\.index\.json or .*fetch the weights compl"):
        M3Encoder(str(copy), device="cpu")


def test_a_token_without_a_vector_is_named(tiny_checkpoint: Path, copy: Path) -> None:
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    token = dict(tokenizer["added_tokens"][-1], id=250_002, content="<duck>")
    path.write_text(json.dumps({**tokenizer, "added_tokens": [*tokenizer["added_tokens"], token]}), encoding="utf-8")
    encoder, plain = M3Encoder(str(copy), device="cpu"), M3Encoder(str(tiny_checkpoint), device="cpu")
    assert np.array_equal(encoder.encode_documents(["a duck"]).dense, plain.encode_documents(["a duck"]).dense)
    for encode in (lambda text: encoder.encode_queries([text]), lambda text: encoder.encode_spans(text, [(0, 1)])):
        with pytest.raises(
            ModelError, match=r"json of .* has the token '<duck>' with id 250002, its weights end at id 250001"
        ):
            encode("a <duck> swims")


def test_a_misshaped_head_is_named(copy: Path) -> None:
    torch.save(torch.nn.Linear(32, 1).state_dict(), copy / "sparse_linear.pt")
    with pytest.raises(ModelError, match=r"sparse_linear\.pt does not fit .*\(1, 32\).*\(1, 64\)"):
        M3Encoder(str(copy), device="cpu")


def test_a_damaged_head_is_named(copy: Path) -> None:
    (copy / "colbert_linear.pt").write_bytes(b"not a tensor")
    with pytest.raises(ModelError, match=r"colbert_linear\.pt is damaged"):
        M3Encoder(str(copy), device="cpu")


@pytest.mark.parametrize(
    "held",
    [
        [1, 2],
        torch.zeros(1, 64),
        {"weight": torch.zeros(0, 64), "bias": torch.zeros(0)},
        {"weight": "a", "bias": "b"},
        {"weight": torch.zeros(1, 64), "bias": torch.zeros(5)},
    ],
    ids=["list", "tensor", "empty", "strings", "bias"],
)
def test_a_head_file_of_something_else_is_named(copy: Path, held: object) -> None:
    torch.save(held, copy / "colbert_linear.pt")
    with pytest.raises(ModelError, match=r"colbert_linear\.pt does not fit the backbone"):
        M3Encoder(str(copy), device="cpu")


@pytest.mark.parametrize("contents", [b"{", b"[]", b"\xff\xfe", b""])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_damaged_json_file_is_named(copy: Path, file: str, contents: bytes) -> None:
    (copy / file).write_bytes(contents)
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        M3Encoder(str(copy), device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_position_embeddings", "many"),
        ("max_position_embeddings", 2),
        ("pad_token_id", None),
        ("pad_token_id", -5),
        ("num_attention_heads", 5),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", -1),
        ("hidden_size", 0),
        ("vocab_size", float("inf")),
        ("layer_norm_eps", float("nan")),
        ("model_type", ["bert"]),
    ],
)
def test_a_config_with_an_impossible_value_is_named(copy: Path, key: str, value: object) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=r"config\.json (has|lacks)"):
        M3Encoder(str(copy), device="cpu")


def test_an_activation_that_is_no_name_is_refused(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": ["gelu"]}))
    with pytest.raises(ModelError, match=r"has hidden_act \['gelu'\], which m3rag does not compute"):
        M3Encoder(copy, device="cpu")


@pytest.mark.parametrize(
    "told", [[], {}, {"weight_map": []}, {"weight_map": "x"}, {"weight_map": {"embeddings.LayerNorm.bias": 5}}]
)
def test_an_index_of_something_else_is_named(copy: Path, told: object) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is damaged: it has no weight_map"):
        M3Encoder(copy, device="cpu")


@pytest.mark.parametrize("held", [[1, 2], torch.ones(3), {1: torch.ones(2)}, {"a": "b"}], ids=str)
def test_an_older_weight_file_of_something_else_is_named(copy: Path, held: object) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(held, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"hold no embeddings\.word_embeddings\.weight"):
        M3Encoder(copy, device="cpu")


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("embeddings.LayerNorm.bias", "a text", r"lack embeddings\.LayerNorm\.bias"),
        ("embeddings.LayerNorm.bias", torch.ones(64, dtype=torch.int8), r"bias in .* is of torch\.int8, a quantised"),
        ("embeddings.token_type_embeddings.weight", torch.ones(0, 64), "do not fit their config"),
        ("encoder.layer.0.attention.self.query.weight", torch.ones(64, 5), "do not fit their config"),
    ],
)
def test_a_tensor_that_is_none_or_does_not_fit_is_named(copy: Path, name: str, tensor: object, said: str) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors") | {name: tensor}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=said):
        M3Encoder(copy, device="cpu")


def test_a_dead_link_beside_the_weights_does_no_harm(tiny_checkpoint: Path, copy: Path) -> None:
    (copy / "pytorch_model.bin").symlink_to(copy / "nowhere")
    assert Checkpoint.find(copy).fingerprint() == Checkpoint.find(tiny_checkpoint).fingerprint()


def test_a_head_that_holds_code_is_refused(copy: Path) -> None:
    torch.save(Path("/"), copy / "colbert_linear.pt")
    with pytest.raises(ModelError, match=r"colbert_linear\.pt is damaged"):
        M3Encoder(str(copy), device="cpu")


def test_the_older_weight_file_loads(tiny_checkpoint: Path, copy: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    texts = ["ducks swim", ""]
    both = [M3Encoder(str(f), device="cpu").encode_documents(texts).dense for f in (tiny_checkpoint, copy)]
    assert np.array_equal(*both)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_layer_norms_under_their_older_names_load(tiny_checkpoint: Path, copy: Path, file: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    renamed = {n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): w for n, w in weights.items()}
    assert len(renamed.keys() - weights.keys()) >= 4
    (copy / "model.safetensors").unlink()
    (save_file if file.endswith("safetensors") else torch.save)(renamed, copy / file)
    both = [M3Encoder(str(f), device="cpu").encode_documents(["ducks swim"]).dense for f in (tiny_checkpoint, copy)]
    assert np.array_equal(*both)


def test_heads_in_safetensors_load(tiny_checkpoint: Path, copy: Path) -> None:
    from safetensors.torch import save_file

    names = ("sparse_linear", "colbert_linear")
    heads = {f"{n}.{k}": v for n in names for k, v in torch.load(copy / f"{n}.pt", weights_only=True).items()}
    save_file(heads, copy / "heads.safetensors")
    for name in names:
        (copy / f"{name}.pt").unlink()
    both = [M3Encoder(str(f), device="cpu").encode_documents(["ducks swim"]).colbert for f in (tiny_checkpoint, copy)]
    assert np.array_equal(*both)


def test_a_folder_may_be_given_as_a_path(tiny_checkpoint: Path) -> None:
    named, placed = M3Encoder(str(tiny_checkpoint), device="cpu"), M3Encoder(tiny_checkpoint, device="cpu")
    assert placed.info == named.info


def test_an_unknown_name_says_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'bge-m4'.*mini"):
        Checkpoint.find("bge-m4")


def test_an_unreachable_hub_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hf download BAAI/bge-m3.*mini"):
        Checkpoint.find("BAAI/bge-m3", cache_folder=str(tmp_path), local_files_only=True)


def test_a_bad_recipe_is_named(copy: Path) -> None:
    (copy / "m3rag.json").write_text(json.dumps({"poling": "cls"}))
    with pytest.raises(ModelError, match=r"m3rag\.json.*poling"):
        Checkpoint.find(str(copy))
    (copy / "m3rag.json").write_text(json.dumps({"pooling": "max"}))
    with pytest.raises(ModelError, match=r"pooling is 'max'.*cls, mean, last_token"):
        Checkpoint.find(str(copy))
    for value, said in (
        ({"query_prefix": 5}, "query_prefix is 5, must be text"),
        ({"document_prefix": None}, "document_prefix is None, must be text"),
        ({"max_length": "x"}, "max_length must be a whole number, got 'x'"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
    ):
        (copy / "m3rag.json").write_text(json.dumps(value))
        with pytest.raises(ModelError, match=rf"m3rag\.json: {said}"):
            Checkpoint.find(copy)


@pytest.mark.parametrize("model", [5, None, b"mini"])
def test_a_model_that_is_no_name_is_refused(model: object) -> None:
    with pytest.raises(ModelError, match="give its name or folder as text"):
        Checkpoint.find(model)  # type: ignore[arg-type]


def test_the_fingerprint_follows_the_numbers_not_the_place(tiny_checkpoint: Path, copy: Path) -> None:
    original = Checkpoint.find(str(tiny_checkpoint)).fingerprint()
    assert Checkpoint.find(str(copy)).fingerprint() == original
    head = torch.load(copy / "sparse_linear.pt", weights_only=True)
    torch.save({k: v * 2 for k, v in head.items()}, copy / "sparse_linear.pt")
    assert Checkpoint.find(str(copy)).fingerprint() != original


def test_a_fine_tune_of_some_tensors_is_another_model(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    found = {Checkpoint.find(copy).fingerprint()}
    for kind in ("query.weight", "LayerNorm.weight", "layer.1.output.dense.bias"):
        moved = {name: tensor + 0.1 if name.endswith(kind) else tensor for name, tensor in weights.items()}
        save_file(moved, copy / "model.safetensors", metadata={"format": "pt"})
        found.add(Checkpoint.find(copy).fingerprint())
    assert len(found) == 4


def test_parts_of_the_weights_count_whatever_they_are_called(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(weights, "part.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    found = set()
    for step in (0.0, 0.1):
        weights["encoder.layer.0.output.dense.bias"] += step
        save_file(weights, copy / "part.safetensors")
        M3Encoder(copy, device="cpu")
        found.add(Checkpoint.find(copy).fingerprint())
    assert len(found) == 2


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
def test_pooling_is_what_the_recipe_says(copy: Path, pooling: str) -> None:
    (copy / "m3rag.json").write_text(json.dumps({"pooling": pooling}))
    encoder = M3Encoder(str(copy), device="cpu")
    backbone = AutoModel.from_pretrained(copy, add_pooling_layer=False)
    texts = ["ducks swim on the pond", "short"]
    rows = []
    for ids in encoder.tokenizer.encode(texts, max_length=512).ids:
        with torch.inference_mode():
            states = backbone(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0]
        pooled = {"cls": states[0], "mean": states.mean(0), "last_token": states[-1]}[pooling]
        rows.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    assert np.abs(encoder.encode_documents(texts).dense - np.stack(rows)).max() <= 1e-5
