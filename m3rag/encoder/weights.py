"""The tensors of a checkpoint by name, from whichever of the usual files holds them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from m3rag.encoder.device import is_out_of_memory
from m3rag.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m3rag.encoder.checkpoint import Checkpoint

WORD_TABLE = "embeddings.word_embeddings.weight"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OLDER_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""TensorFlow's, which the first BERTs still have (bert-base-multilingual-cased)."""


class Weights:
    """The backbone's tensors, read one by one, so that a model is in memory only once.

    Names are those inside the backbone (`encoder.layer.0. ...`): a prefix such as `roberta.`, under
    which a checkpoint with a task head keeps them, is left out.

    Raises:
        ModelError: If a file is damaged, or holds no backbone; the file is named.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._files, self._loaded = _index(checkpoint.folder)
        tables = [name for name in (self._files or self._loaded) if name.endswith(WORD_TABLE)]
        if not tables:
            raise ModelError(f"the weights in {checkpoint.folder} hold no {WORD_TABLE}: they are not a text encoder's")
        self._prefix = min(tables, key=len)[: -len(WORD_TABLE)]

    def __getitem__(self, name: str) -> Tensor:
        """A tensor of its own (no view of the file, which may be replaced while the model lives)."""
        return self.outside(self._prefix + name)

    def outside(self, key: str) -> Tensor:
        """As `weights[name]`, by its whole name in the file: a task head lies beside the backbone."""
        names = self._files or self._loaded
        older = next((key.removesuffix(new) + old for new, old in OLDER_NAMES.items() if key.endswith(new)), key)
        if key not in names and older in names:
            key = older
        if key in self._loaded:
            tensor = self._loaded[key]
        elif key in self._files:
            with damage_named(self._files[key]), safe_open(self._files[key], framework="pt") as file:
                tensor = file.get_tensor(key)
        else:
            raise ModelError(f"the weights in {self._folder} lack {key}: fetch or save the checkpoint again")
        if tensor.dtype not in DTYPES:
            raise ModelError(
                f"{key} in {self._folder} is of {tensor.dtype}, a quantised form that m3rag does not compute: give a "
                "checkpoint in float32, float16 or bfloat16"
            )
        return tensor.clone()


def _index(folder: Path) -> tuple[dict[str, Path], Mapping[str, Tensor]]:
    """Which file holds which tensor; and the tensors of a pickled checkpoint, mapped from the disk."""
    if (folder / "model.safetensors").is_file():
        return dict.fromkeys(_names(folder / "model.safetensors"), folder / "model.safetensors"), {}
    if (folder / "model.safetensors.index.json").is_file():
        path = folder / "model.safetensors.index.json"
        with damage_named(path):
            told = json.loads(path.read_text(encoding="utf-8"))
            parts = told.get("weight_map") if isinstance(told, dict) else None
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise ValueError("it has no weight_map that names the file of each tensor")
        return {name: folder / part for name, part in parts.items()}, {}
    path = folder / "pytorch_model.bin"
    with damage_named(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    named = loaded.items() if isinstance(loaded, Mapping) else ()
    return {}, {name: tensor for name, tensor in named if isinstance(name, str) and isinstance(tensor, Tensor)}


def _names(path: Path) -> list[str]:
    with damage_named(path), safe_open(path, framework="pt") as file:
        return list(file.keys())


def _is_zip(path: Path) -> bool:
    # Files of torch before 1.6 are no archives and cannot be mapped.
    return zipfile.is_zipfile(path)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into a `ModelError` that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError, zipfile.BadZipFile) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{path} is damaged: {error}; fetch it again") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for anything that weights_only refuses
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelError(f"{path} is damaged or holds more than tensors: fetch it again") from error
