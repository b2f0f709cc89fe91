"""SentenceTransformerEncoder: any model of the library sentence-transformers, for its dense vectors."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

from m3rag.encoder.checkpoint import ModelName
from m3rag.encoder.dense_only import Batch, DenseOnlyEncoder
from m3rag.encoder.device import Device, choose_device, choose_dtype, is_out_of_memory
from m3rag.encoder.fingerprint import fingerprint
from m3rag.encoder.inputs import require_whole
from m3rag.encoder.spans import Spans, spans_of
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from m3rag.encoder.inputs import Role

ORGANIZATION = "sentence-transformers"
"""Where sentence-transformers looks for a name without an organisation."""

SPECIALS = 2
"""Tokens that most models put around a text."""

BATCHES_AT_ONCE = 16
"""Batches handed over together: the more, the better their texts can be sorted by length."""

# What the numbers depend on; a snapshot from the hub may hold other formats of the weights beside it.
CONFIGURATION = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "router_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
VOCABULARY = ("vocab.*", "merges.txt", "*.model")
OTHER_FOLDERS = ("onnx", "openvino", "checkpoint-*", ".*")
WEIGHTS, OLD_WEIGHTS = ("*.safetensors",), ("pytorch_model*.bin",)


class SentenceTransformerEncoder(DenseOnlyEncoder):
    """Encode texts with a model of sentence-transformers: one dense vector a text, no other leg.

    Questions and passages get the prompts that the model defines for them. Safe to share between
    threads: the model is locked. Pickled are its arguments: another process that gets the encoder loads the model
    from the same place.

    Setup:
        ```bash
        pip install "m3rag[sentence-transformers]"
        ```

    Example:
        >>> encoder = SentenceTransformerEncoder("sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> kb = KnowledgeBase("my-index", encoder=encoder, mode="dense")  # doctest: +SKIP

    Args:
        model: A folder that `SentenceTransformer.save` wrote, or the id of such a model on the hub.
        device: As torch names it; a CUDA device if there is one, else the CPU.
        dtype: `float32`, `float16` or `bfloat16`; by default float32 on the CPU, and elsewhere what
            the model was saved in, since not every model bears float16.
        max_length: Most tokens of a text, specials and prompt included; longer ones are cut. By
            default what the model was saved with.
        batch_size: Texts of one forward pass.
        query_instruction: Put before each question; None for the model's own prompt, "" for none.
        document_instruction: Put before each passage; likewise.
        truncate_dim: Keep only so many of the first dimensions, for models trained to be cut short.
        normalize: Bring vectors to unit length, so that scores are cosines. Without it they are
            inner products of any size, as some models were trained for.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub; `HF_HUB_OFFLINE=1` does the same.
        trust_remote_code: Run the Python code that some models bring along; for models that you trust.

    Raises:
        ImportError: If sentence-transformers is not installed.
        ModelError: If the model cannot be had or loaded, or its tokens have no place in the text.
        ConfigurationError: If an option is out of range for the model.
    """

    def __init__(
        self,
        model: ModelName,
        *,
        device: Device | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool = True,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        batch_size = require_whole("batch_size", batch_size, least=1)
        if truncate_dim is not None:
            truncate_dim = require_whole("truncate_dim", truncate_dim, least=1)
        if max_length is not None:
            max_length = require_whole("max_length", max_length)
        model = os.fspath(model)
        if not model.strip():
            raise InputError(
                "the model's name is empty: give a folder, or a hub id such as intfloat/multilingual-e5-small"
            )
        self.device = choose_device(device)
        self.batch_size = batch_size
        self.normalize = normalize
        self._prompts = {"query": query_instruction, "document": document_instruction}
        self._lock = threading.Lock()
        cache_folder = cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        auto = dtype is None and self.device.type != "cpu"
        self.model: Any = _load(
            model,
            cache_folder=cache_folder,
            device=str(self.device),
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            truncate_dim=truncate_dim,
            model_kwargs={"dtype": "auto" if auto else choose_dtype(dtype, self.device)},
        )
        self._word_spans = spans_of(_backend(self.model, name=model))
        self._max_length = _max_length(self.model, max_length, name=model)
        options = {
            "max_length": self._max_length,
            "query_instruction": query_instruction,
            "document_instruction": document_instruction,
            "truncate_dim": truncate_dim,
            "normalize": normalize,
        }
        folder = _folder(model, cache_folder=cache_folder)
        self._info = ModelInfo(
            name=model,
            fingerprint=fingerprint(options, folder=folder, files=_files(folder)),
            dense_dim=self._dimension(model, truncate_dim),
            vocab_size=0,
            colbert_dim=0,
        )

    def __reduce__(self) -> tuple[Callable[[], SentenceTransformerEncoder], tuple[()]]:
        return partial(type(self), **self._arguments), ()

    @property
    def info(self) -> ModelInfo:
        """The model's name, fingerprint and dimension; the fingerprint depends on every option but device,
        dtype and batch_size, which change no more than rounding.
        """
        return self._info

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials and prompt included."""
        return self._max_length

    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens of a text of any length, white space left out."""
        return self._word_spans(text)

    def _embed(self, texts: list[str], role: Role) -> Iterator[Batch]:
        size = self.batch_size * BATCHES_AT_ONCE
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            yield np.arange(start, start + len(part)), self._forward(part, role)
        # A text with fewer bytes than that has fewer tokens, and need not be counted; prompts are short.
        long = [text for text in texts if len(text.encode()) > self.max_length - SPECIALS]
        self._warn_of_cuts(sum(len(self.word_spans(text)) > self.max_length - SPECIALS for text in long), len(texts))

    def _forward(self, texts: list[str], role: Role) -> Any:
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        try:
            # Also its tokenizer may be used by one thread at a time only.
            with self._lock:
                vectors = encode(texts, prompt=self._prompts[role], batch_size=self.batch_size, show_progress_bar=False)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                f"{self.batch_size} texts do not fit in the memory of {self.device}: lower batch_size or max_length "
                f"(now {self.max_length})"
            ) from error
        return vectors.astype(np.float32, copy=False)

    def _dimension(self, name: str, truncate_dim: int | None) -> int:
        # What comes out is the truth: not every kind of model knows its own dimension.
        dimension = int(self._forward(["dimension"], "document").shape[1])
        if truncate_dim is not None and truncate_dim > dimension:
            raise ConfigurationError(f"truncate_dim {truncate_dim} is out of range for {name}: choose 1 to {dimension}")
        return dimension


def _load(model: str, *, cache_folder: str | None, local_files_only: bool, **options: Any) -> Any:
    """The model, ready to compute; never one whose pooling would be guessed."""
    library = _library()
    fetch = f"fetch it once with `hf download {_repository(model)}` where there is a network, or give a folder"
    try:
        # Given a name, the library asks the hub for one thing or another even where it was told not to.
        source = str(_folder(model, cache_folder=cache_folder)) if local_files_only else _repository(model)
        if library.util.is_sentence_transformer_model(source, cache_folder=cache_folder):
            return library.SentenceTransformer(source, cache_folder=cache_folder, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        remedy = "if you trust it, allow trust_remote_code=True" if "trust_remote_code" in said else fetch
        raise ModelError(f"the model {model!r} cannot be loaded ({type(error).__name__}: {said}): {remedy}") from error
    make = (
        "make one of a bare transformer with SentenceTransformer(modules=[Transformer(...), Pooling(...)]).save(folder)"
    )
    raise ModelError(
        f"{model!r} is no model of sentence-transformers, or not on this machine (there is no modules.json, which says "
        f"how tokens become one vector): {make if Path(source).is_dir() else fetch}"
    )


def _repository(model: str) -> str:
    """The folder, or the id on the hub in full."""
    folder = Path(model).expanduser()
    return str(folder) if folder.is_dir() else model if "/" in model else f"{ORGANIZATION}/{model}"


def _folder(model: str, *, cache_folder: str | None) -> Path:
    found = Path(_repository(model))
    return (
        found
        if found.is_dir()
        else Path(snapshot_download(_repository(model), cache_dir=cache_folder, local_files_only=True))
    )


def _files(folder: Path) -> list[Path]:
    """The files on which the numbers depend, the same for a copy and for what the library fetches."""
    inside = [path for path in folder.rglob("*") if path.is_dir()]
    of_model = [path for path in inside if not _matches(path.relative_to(folder).parts, OTHER_FOLDERS)]
    return sorted(file for part in (folder, *of_model) for file in _needed(part))


def _needed(folder: Path) -> list[Path]:
    """Of the files of one folder those that are read, where one form of a thing is read before another."""
    files = [path for path in folder.iterdir() if path.is_file()]
    names = {path.name for path in files}
    weights = WEIGHTS if _matches(names, WEIGHTS) else OLD_WEIGHTS
    vocabulary = () if "tokenizer.json" in names else VOCABULARY
    return [path for path in files if _matches([path.name], (*CONFIGURATION, *weights, *vocabulary))]


def _matches(names: Collection[str], patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def _backend(model: Any, *, name: str) -> Tokenizer:
    """The tokenizer that knows where its tokens stand."""
    tokenizer = getattr(model[0], "tokenizer", None)
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"the tokenizer of {name!r} ({type(tokenizer).__name__}) does not tell where its tokens stand in a text: "
            "choose a model with a fast tokenizer (a tokenizer.json), or save this one's with "
            "AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)"
        )
    return backend


def _max_length(model: Any, asked: int | None, *, name: str) -> int:
    """Most tokens of a text as asked for, or as the model was saved with; the model is told."""
    own = model.max_seq_length
    if own == math.inf:  # a model that adds up the vectors of words
        if asked is not None:
            raise ConfigurationError(f"max_length {asked}: {name} takes texts of any length; leave max_length out")
        return sys.maxsize
    positions = _positions(model)
    chosen = int(min(own or positions, positions)) if asked is None else asked
    if not 3 <= chosen <= positions:
        raise ConfigurationError(f"max_length {chosen} is out of range for {name}: choose 3 to {positions}")
    model.max_seq_length = chosen
    return chosen


def _positions(model: Any) -> int:
    """For how many tokens the network has positions."""
    network = getattr(model[0], "auto_model", None)
    positions = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return sys.maxsize
    embeddings = getattr(network, "embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    # RoBERTa and its kin count positions from behind the padding id: 514 of them hold 512 tokens.
    return positions - (padding + 1 if isinstance(padding, int) else 0)


def _library() -> Any:
    """The sentence-transformers package, loaded on first use: it takes seconds."""
    try:
        import sentence_transformers  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            'SentenceTransformerEncoder needs sentence-transformers: pip install "m3rag[sentence-transformers]"'
        ) from error
    return sentence_transformers
