"""From a model's name to a checkpoint folder that holds everything the encoder needs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from m3rag.encoder.fingerprint import fingerprint
from m3rag.encoder.inputs import require_whole
from m3rag.encoder.mini import HEADS, RECIPE, ensure_mini
from m3rag.errors import ConfigurationError, ModelError

Pooling = Literal["cls", "mean", "last_token"]

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
HEAD_FILES = ("sparse_linear.pt", "colbert_linear.pt")

ModelName = str | os.PathLike[str]
"""`mini`, the id of a model on the hub, or a folder."""

HUB_PATTERNS = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    *HEAD_FILES,
    HEADS,
    RECIPE,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a checkpoint wants to be used; the defaults are those of BAAI/bge-m3.

    Attributes:
        pooling: What becomes the dense vector.
        query_prefix: Put before each question; ends in a blank, or is empty.
        document_prefix: Put before each passage; likewise.
        max_length: Tokens, specials included, that a text may have; None for the model's limit.
    """

    pooling: Pooling = "cls"
    query_prefix: str = ""
    document_prefix: str = ""
    max_length: int | None = None

    def require_valid(self) -> None:
        """Raise `ConfigurationError` if a value is unknown or of the wrong type."""
        if self.pooling not in get_args(Pooling):
            raise ConfigurationError(f"pooling is {self.pooling!r}, must be one of {', '.join(get_args(Pooling))}")
        for name in ("query_prefix", "document_prefix"):
            if not isinstance(getattr(self, name), str):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}, must be text")
        if self.max_length is not None:
            require_whole("max_length", self.max_length, least=1)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model found on disk: the name it was asked for by, its folder, its recipe."""

    name: str
    folder: Path
    recipe: Recipe

    @classmethod
    def find(
        cls, model: ModelName, *, cache_folder: str | None = None, local_files_only: bool = False, heads: bool = True
    ) -> Checkpoint:
        """Find a model by name, fetching or converting it when that is allowed and needed.

        Args:
            model: `mini`, a folder as text or path, or the id of a model on the hub such as BAAI/bge-m3.
            cache_folder: Where models fetched from the hub are kept; the hub's default if None.
            local_files_only: Never ask the hub; `HF_HUB_OFFLINE=1` does the same.
            heads: Whether it must have the two heads of M3; a reranker has none.

        Raises:
            ModelError: If the model is unknown, cannot be had, or lacks a file.
        """
        if not isinstance(model, str | os.PathLike) or not isinstance(os.fspath(model), str):
            raise ModelError(f"the model is {model!r}: give its name or folder as text, or a Path")
        model = os.fspath(model)
        folder = _locate(model, cache_folder=cache_folder, local_files_only=local_files_only, heads=heads)
        checkpoint = cls(model, folder, _read_recipe(folder))
        checkpoint._require_files(heads=heads)
        return checkpoint

    def config(self) -> dict[str, Any]:
        """The contents of `config.json`.

        Raises:
            ModelError: If it is damaged.
        """
        path = self.folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path} is damaged ({error}): fetch it again") from error
        if not isinstance(config, dict):
            raise ModelError(f"{path} holds a {type(config).__name__}, not a JSON object: fetch it again")
        if not isinstance(config.get("model_type", ""), str):
            raise ModelError(f"{path} has the model_type {config['model_type']!r}, which is no name: fetch it again")
        return config

    @property
    def has_shipped_heads(self) -> bool:
        """Whether the heads stand in one safetensors file, as m3rag ships them."""
        return (self.folder / HEADS).is_file()

    def fingerprint(self) -> str:
        """A hash that changes whenever the model's numbers would.

        Raises:
            ModelError: If a file cannot be read.
        """
        named = (path for path in self.folder.iterdir() if path.name in HUB_PATTERNS or path.suffix == ".safetensors")
        # A link into a cache that was cleared is no file: nothing is read from it.
        return fingerprint({}, folder=self.folder, files=sorted(path for path in named if path.is_file()))

    def _require_files(self, *, heads: bool) -> None:
        def missing(what: str, remedy: str) -> ModelError:
            return ModelError(f"the model {self.name!r} has no {what} in {self.folder}: {remedy}")

        if not (self.folder / "config.json").is_file():
            raise missing("config.json", "give the folder of a checkpoint")
        if not any((self.folder / f).is_file() for f in WEIGHT_FILES):
            raise missing(" or ".join(WEIGHT_FILES), "fetch the weights completely")
        if not (self.folder / "tokenizer.json").is_file():
            raise missing("tokenizer.json", "save the tokenizer with transformers' AutoTokenizer(...).save_pretrained")
        if heads and not self.has_shipped_heads:
            for file in HEAD_FILES:
                if not (self.folder / file).is_file():
                    raise missing(
                        file,
                        "an M3 model needs both heads; take a dense-only model as SentenceTransformerEncoder",
                    )


def _locate(model: str, *, cache_folder: str | None, local_files_only: bool, heads: bool) -> Path:
    known = "mini, a hub id such as BAAI/bge-m3" if heads else "a hub id such as BAAI/bge-reranker-v2-m3"
    if not model.strip():
        raise ModelError(f"the model's name is empty: give {known}, or the folder of a checkpoint")
    if model == "mini" and heads:
        return ensure_mini()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(f"unknown model {model!r}: give {known}, or an existing folder")
    try:
        return _fetch(model, cache_folder=cache_folder, local_files_only=local_files_only)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        embedded = ', or choose the embedded model with model="mini" (--model mini)' if heads else ""
        raise ModelError(
            f"the model {model!r} is neither on this machine nor to be had from the hub ({type(error).__name__}). "
            f"Fetch it once with `hf download {model}` where there is a network, or give the folder of a copy{embedded}"
        ) from error


def _fetch(model: str, *, cache_folder: str | None, local_files_only: bool) -> Path:
    patterns = list(HUB_PATTERNS)
    return Path(
        snapshot_download(model, cache_dir=cache_folder, local_files_only=local_files_only, allow_patterns=patterns)
    )


def _read_recipe(folder: Path) -> Recipe:
    path = folder / RECIPE
    if not path.is_file():
        return Recipe()
    try:
        recipe = Recipe(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a recipe of m3rag: {error}") from error
    try:
        recipe.require_valid()
    except ConfigurationError as error:
        raise ModelError(f"{path}: {error}") from error
    return recipe
