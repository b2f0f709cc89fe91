"""A trained network as a checkpoint folder, which appears whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from m3rag.encoder.checkpoint import HEAD_FILES
from m3rag.encoder.mini import HEADS, RECIPE
from m3rag.encoder.transformer import Architecture, Transformer
from m3rag.encoder.weights import WORD_TABLE, Weights
from m3rag.errors import InputError
from m3rag.evaluation.report import require_writable
from m3rag.training.backbone import Subject, merged_backbone
from m3rag.training.trainee import Trainee

RECORD = "training.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
    "vocab.txt",
)
"""What is taken over from the base as it stands."""

TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
}
"""Says to transformers that `tokenizer.json` is to be taken as it stands."""

SPECIALS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
"""Of XLM-RoBERTa's vocabulary, which is that of `mini`."""


def require_free(folder: Path, *, as_file: bool = False) -> None:
    """Refuse an output folder that holds something, or that could not be written when all is done.

    Args:
        folder: Where to.
        as_file: It is to be a file, for which an empty folder is no place.

    Raises:
        InputError: If it does, is a file, or cannot be made or written, or its name does not say what it is
            called: `.` and `..`.
    """
    if folder.name in {"", ".."}:  # the work before it is called after it
        raise InputError(f"{folder} is a folder by another name: give --out the name of a new one")
    if as_file and folder.is_dir():
        raise InputError(
            f"{folder} is a folder, and one file of data becomes one file: give --out the name of a new file"
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already and nothing is overwritten: give another --out, or remove it")
    require_writable(folder.parent)  # where the folder is made, and its work before it


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say of what goes wrong in writing where it did.

    Raises:
        InputError: If the disk is full, or cannot be written for another reason.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder} cannot be written ({error}): make room on its disk and start again, or give another --out"
        ) from error


def publish(write: Callable[[Path], None], folder: Path, *, work: Path, record: dict[str, Any]) -> None:
    """Write a checkpoint to a folder that appears whole, by one rename.

    Args:
        write: Fills an empty folder.
        folder: Where to; missing or empty.
        work: Where it is made ready, on the same disk; what is there is removed.
        record: What made it, for `training.json`.

    Raises:
        InputError: If the folder holds something, or cannot be written.
    """
    require_free(folder)
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed while it wrote
    with writing(work):
        work.mkdir(parents=True)
        write(work)
        write_json(work / RECORD, record)
        if folder.is_dir():
            folder.rmdir()  # an empty folder can be renamed over on POSIX only
        work.rename(folder)


def write_model(trainee: Trainee, folder: Path, *, merge: float = 1.0) -> None:
    """Write a model that loads in `M3Encoder` and, where its base does, in FlagEmbedding's `BGEM3FlagModel`.

    Tensors that were not trained stand in it as in the base, trained ones in float32. The heads lie in
    `colbert_linear.pt` and `sparse_linear.pt`; where the base has `heads.safetensors` instead, as `mini`
    does, so has the result, in float16.

    Args:
        trainee: The model; deltas of low rank are added into its matrices.
        folder: Where to.
        merge: How far from the base's backbone to the trained one its weights lie, in (0, 1].
    """
    tensors = dict(backbone_tensors(trainee, trainee.network.backbone, merge=merge))
    write_network(trainee, folder, tensors, {})
    if (recipe := trainee.checkpoint.folder / RECIPE).is_file():
        shutil.copyfile(recipe, folder / RECIPE)
    _write_heads(trainee, folder)


def write_network(trainee: Subject, folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights, `config.json` and the base's tokenizer.

    Args:
        trainee: Whose.
        folder: Where to.
        tensors: By the names in the file.
        config: Keys that replace those of the base.
    """
    for name in TOKENIZER_FILES:
        if (source := trainee.checkpoint.folder / name).is_file():
            shutil.copyfile(source, folder / name)
    _name_tokenizer(trainee, folder)
    written = trainee.checkpoint.config() | dict(config)
    if any(tensor.dtype == torch.float32 for tensor in tensors.values()):
        written.pop("torch_dtype", None)
        written["dtype"] = "float32"
    write_json(folder / "config.json", written)
    _save(dict(tensors), folder / "model.safetensors")


def _name_tokenizer(trainee: Subject, folder: Path) -> None:
    """Write `tokenizer_config.json` where the base, as `mini`, has none.

    transformers would go by the model's type, and look for the vocabulary of a BERT in it.
    """
    path = folder / "tokenizer_config.json"
    known = {token["content"] for token in json.loads((folder / "tokenizer.json").read_bytes()).get("added_tokens", ())}
    if not path.is_file() and set(SPECIALS.values()) <= known:
        longest = Architecture.of(trainee.checkpoint).max_length
        write_json(path, {**TOKENIZER, "model_max_length": longest, **SPECIALS})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copymode(path.with_name("config.json"), path)  # it was written for its owner alone


def _write_heads(trainee: Trainee, folder: Path) -> None:
    heads = {name: getattr(trainee.network, name) for name in ("sparse_linear", "colbert_linear")}
    if trainee.checkpoint.has_shipped_heads:
        both = {
            f"{name}.{key}": tensor.half() for name, head in heads.items() for key, tensor in state_of(head).items()
        }
        _save(both, folder / HEADS)
        return
    for file in HEAD_FILES:
        with (folder / file).open("wb") as opened:  # by its name torch would hide why it cannot be written
            torch.save(state_of(heads[Path(file).stem]), opened)


def state_of(head: nn.Linear) -> dict[str, Tensor]:
    """Its tensors in main memory, in float32."""
    return {key: tensor.detach().cpu().float().contiguous() for key, tensor in head.state_dict().items()}


def backbone_tensors(trainee: Subject, backbone: Transformer, *, merge: float = 1.0) -> Iterator[tuple[str, Tensor]]:
    """The backbone under transformers' names: the base's tensors, and in their place those that were trained.

    Args:
        trainee: Whose.
        backbone: In training.
        merge: How far from the base's tensor to the trained one each lies.
    """
    stored = Weights(trainee.checkpoint)
    ours = merged_backbone(backbone)
    moved = {name.replace(".base_layer.", ".").split(".lora_")[0] for name in _trained_names(trainee)}

    def one(ours_name: str, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        is_moved = bool({ours_name, ours_name.removesuffix(".weight")} & moved)
        if not is_moved:
            return name, stored[name].contiguous()
        trained = tensor.detach().cpu().float()
        return name, (trained.clone() if merge == 1 else stored[name].float().lerp(trained, merge)).contiguous()

    types, positions = stored["embeddings.token_type_embeddings.weight"], ours["positions.weight"]
    if "positions.types" in ours:
        types = ours["positions.types"]
    else:
        # `load_transformer` put the row of type 0 into every position.
        positions = positions - types[0].to(positions)
    yield one("positions.types", "embeddings.token_type_embeddings.weight", types)
    yield one("words.weight", WORD_TABLE, ours["words.weight"])
    yield one("positions.weight", "embeddings.position_embeddings.weight", positions)
    for part in ("weight", "bias"):
        yield one(f"norm.{part}", f"embeddings.LayerNorm.{part}", ours[f"norm.{part}"])
    names = {"out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm"}
    names |= {"up": "intermediate.dense", "down": "output.dense", "norm": "output.LayerNorm"}
    for i in range(backbone.shape.layers):
        for part in ("weight", "bias"):
            fused = f"layers.{i}.qkv.{part}"
            for key, tensor in zip(("query", "key", "value"), ours[fused].chunk(3), strict=True):
                yield one(fused, f"encoder.layer.{i}.attention.self.{key}.{part}", tensor)
            for short, long in names.items():
                name = f"layers.{i}.{short}.{part}"
                yield one(name, f"encoder.layer.{i}.{long}.{part}", ours[name])


def _trained_names(trainee: Subject) -> Iterator[str]:
    return (name.removeprefix("backbone.") for name in trainee.trained if name.startswith("backbone."))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write it for people to read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
