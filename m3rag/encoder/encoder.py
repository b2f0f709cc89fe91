"""M3Encoder: texts in, dense + lexical + ColBERT out, in one pass over packed batches."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from m3rag._copied import CopiedAsItself
from m3rag.encoder.assembly import OutputBuilder
from m3rag.encoder.batching import MCLS_TOKENS, Batch, Rows, pack
from m3rag.encoder.checkpoint import Checkpoint, ModelName, Pooling, Recipe
from m3rag.encoder.device import Device, choose_dtype
from m3rag.encoder.devices import DevicePool, choose_devices
from m3rag.encoder.engine import DeviceEngine, Encoded, Engine, Finish, Network
from m3rag.encoder.inputs import Progress, Role, require_role, require_texts, require_whole
from m3rag.encoder.late import encode_spans
from m3rag.encoder.lexical import MAX_VOCAB
from m3rag.encoder.lookahead import lookahead
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.encoder.model import M3Model, load_heads, load_model
from m3rag.encoder.onnx import FORMAT
from m3rag.encoder.spans import Spans
from m3rag.encoder.tokenizer import SPECIALS, Tokenized, Tokenizer
from m3rag.encoder.transformer import Architecture
from m3rag.errors import ConfigurationError, ModelError
from m3rag.output import M3Output
from m3rag.types import ModelInfo

log = logging.getLogger(__name__)

Backend = Literal["torch", "onnx", "onnx-int8"]

BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
"""Enough to keep the device busy; more would only push a CPU's activations out of its cache."""

WINDOW_BATCHES = 32
"""Texts are tokenised and sorted so many batches at a time, while the window before is computed."""

CHARACTERS_PER_TOKEN = 4


class M3Encoder(AsyncEncoding, CopiedAsItself):
    """Encode texts with an M3 checkpoint.

    Safe to share between threads: the forward pass is locked. Pickled are its arguments: another process that gets
    the encoder loads the model from the same place.

    Example:
        >>> encoder = M3Encoder("mini")
        >>> output = encoder.encode_documents(["Ducks swim.", "Les canards nagent."])
        >>> output.dense.shape, output.lexical.shape, output.colbert.shape
        ((2, 384), (2, 250037), (12, 256))

    Args:
        model: `mini` (embedded), a hub id such as `BAAI/bge-m3`, or a checkpoint folder.
        device: As torch names it, its number among the CUDA devices, or its `torch.device`; by default a CUDA device
            if there is one, else the CPU. Several, such as `["cuda:0", "cuda:1"]`, have a worker process each, with
            a copy of the network, from the first call to `close`; a script that does so keeps its work under
            `if __name__ == "__main__":`.
        dtype: `float32`, `float16` or `bfloat16`; by default float16 on CUDA and float32 elsewhere.
            A CPU without instructions for half precision is refused it: it would be slower.
        backend: What computes the network: `torch`; `onnx`, ONNX Runtime, always in float32; or `onnx-int8`, once
            `m3rag export MODEL --int8` has found that its loss is small enough.
        max_length: Most tokens of a text, specials included; longer ones are cut, counted in
            `truncated_texts`, and told of once a call by a log warning. By default what the
            checkpoint's recipe says, else the model's limit.
        batch_tokens: Most tokens of one forward pass; by default 2,048 on a CPU, 32,768 on CUDA.
        colbert_dtype: Of the token vectors given out; half the memory at no loss that a ranking shows.
        pooling: What becomes the dense vector; by default what the recipe says (`cls` for BGE-M3).
        query_instruction: Put before each question, instead of the recipe's prefix. It steers all
            three representations, but has no lexical weights and token vectors of its own. A blank is put
            after it where it ends in none.
        document_instruction: Likewise before each passage.
        truncate_dim: Keep only so many leading dimensions of the dense vector.
        normalize: Give dense and token vectors unit length.
        mcls: For long texts: a CLS before each 256 tokens, their states averaged into the dense vector.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Attributes:
        truncated_texts: How many texts were cut to `max_length` so far.

    Raises:
        ModelError: If the model cannot be had or loaded.
        ConfigurationError: If an option is out of range for the model.
    """

    def __init__(
        self,
        model: ModelName = "BAAI/bge-m3",
        *,
        device: Device | Sequence[Device] | None = None,
        dtype: str | None = None,
        backend: Backend = "torch",
        max_length: int | None = None,
        batch_tokens: int | None = None,
        colbert_dtype: Literal["float16", "float32"] = "float16",
        pooling: Pooling | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool = True,
        mcls: bool = False,
        cache_folder: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        if batch_tokens is not None:
            batch_tokens = require_whole("batch_tokens", batch_tokens, least=1)
        if colbert_dtype not in ("float16", "float32"):
            raise ConfigurationError(f"colbert_dtype is {colbert_dtype!r}, must be float16 or float32")
        checkpoint = Checkpoint.find(model, cache_folder=cache_folder, local_files_only=local_files_only)
        recipe = checkpoint.recipe
        self.recipe = Recipe(
            pooling=recipe.pooling if pooling is None else pooling,
            query_prefix=recipe.query_prefix if query_instruction is None else _prefix_of(query_instruction),
            document_prefix=recipe.document_prefix
            if document_instruction is None
            else _prefix_of(document_instruction),
            max_length=recipe.max_length,
        )
        self.recipe.require_valid()
        self.mcls = mcls
        self.normalize = normalize
        self.colbert_dtype = np.dtype(colbert_dtype)
        self.devices = choose_devices(device)
        self.device = self.devices[0]
        self.backend = backend
        self.dtype = _choose_dtype(backend, dtype, self.device)
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        self.tokenizer = Tokenizer(checkpoint.folder / "tokenizer.json")
        self.truncated_texts = 0
        architecture = Architecture.of(checkpoint)
        self._words = architecture.vocab_size
        self._limit = architecture.max_length
        self._max_length = self._valid_length(
            min(recipe.max_length or self._limit, self._limit) if max_length is None else max_length, *get_args(Role)
        )
        if truncate_dim is not None:
            truncate_dim = require_whole("truncate_dim", truncate_dim)
            if not 1 <= truncate_dim <= architecture.hidden:
                raise ConfigurationError(f"truncate_dim must be 1 to {architecture.hidden}, got {truncate_dim}")
        vocab_size = max(self._words, self.tokenizer.vocab_size)
        if vocab_size > MAX_VOCAB:
            raise ConfigurationError(f"{checkpoint.name} has {vocab_size} tokens, more than the {MAX_VOCAB} supported")
        of_checkpoint = checkpoint.fingerprint()
        self.info = ModelInfo(
            name=checkpoint.name,
            fingerprint=_fingerprint(
                of_checkpoint,
                recipe=None if self.recipe == checkpoint.recipe else repr(self.recipe),
                truncate_dim=truncate_dim if truncate_dim != architecture.hidden else None,
                unnormalized=not normalize or None,
                mcls=mcls or None,
                int8=FORMAT if backend == "onnx-int8" else None,
            ),
            dense_dim=truncate_dim or architecture.hidden,
            vocab_size=vocab_size,
            colbert_dim=load_heads(checkpoint, hidden=architecture.hidden)[1].out_features,
        )
        self._is_as_named = self.info.fingerprint == of_checkpoint
        finish = Finish(self.tokenizer.unused_ids, getattr(torch, colbert_dtype), truncate_dim, normalize)
        load = _loader(backend, checkpoint, self.dtype)
        self.engine: Engine
        if len(self.devices) > 1:
            self.engine = DevicePool(
                load, devices=self.devices, batch_tokens=self.batch_tokens, finish=finish, info=self.info
            )
        else:
            network = load(device=self.device)
            self.engine = DeviceEngine(network, device=self.device, batch_tokens=self.batch_tokens, finish=finish)

    def __reduce__(self) -> tuple[Callable[[], M3Encoder], tuple[()]]:
        return partial(type(self), **self._arguments), ()

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials included."""
        return self._max_length

    @property
    def network(self) -> M3Model:
        """The network itself, for training.

        Raises:
            ConfigurationError: If it is not in this process.
            ModelError: If this process was forked since, and torch has several threads.
        """
        if not (isinstance(self.engine, DeviceEngine) and isinstance(self.engine.network, M3Model)):
            raise ConfigurationError(
                f"the network of {self.info.name!r} is not torch's, or not in this process "
                f"(backend {self.backend!r}, {len(self.devices)} devices): take one device and backend='torch'"
            )
        self.engine.require_threads()
        return self.engine.network

    @property
    def reload_options(self) -> dict[str, Any] | None:
        """What loads the same encoder again by its name; None where options beyond these made it."""
        if not self._is_as_named or self.backend != "torch" or len(self.devices) > 1:
            return None
        return {
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_length": self.max_length,
            "batch_tokens": self.batch_tokens,
        }

    def close(self) -> None:
        """Stop the worker processes of several devices, which a later call would start again."""
        self.engine.close()

    def __enter__(self) -> M3Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode_queries(
        self, texts: Sequence[str], *, max_length: int | None = None, progress: Progress | None = None
    ) -> M3Output:
        """Encode questions.

        Args:
            texts: Any number of strings; empty strings are allowed.
            max_length: Instead of the encoder's, for this call.
            progress: Called with the number of texts done since the last call.

        Returns:
            Representations in the order given.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
            ModelError: If one text alone does not fit in memory, the model gives an infinity or NaN, or this process
                was forked since the model was loaded and torch has several threads.
        """
        return self._encode(texts, role="query", max_length=max_length, progress=progress)

    def encode_documents(
        self, texts: Sequence[str], *, max_length: int | None = None, progress: Progress | None = None
    ) -> M3Output:
        """Encode passages; as `encode_queries`, with the passages' prefix."""
        return self._encode(texts, role="document", max_length=max_length, progress=progress)

    def encode_dense(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        max_length: int | None = None,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]:
        """The dense vectors alone, `(n, d)` float32, without keeping the other two in memory."""
        require_texts(texts)
        dense = np.empty((len(texts), self.info.dense_dim), np.float32)
        for first, window in self._windows(texts, role, max_length):
            for rows, encoded in self._run(window, progress):
                dense[first + rows] = encoded.dense
        return dense

    def encode_spans(self, text: str, spans: Sequence[tuple[int, int]], *, role: Role = "document") -> M3Output:
        """Encode spans of a text in its context, as late chunking does: see `m3rag.encoder.late.encode_spans`."""
        return encode_spans(self, text, spans, role=role)

    def token_spans(self, text: str, *, role: Role = "document") -> Spans:
        """Character spans of the ColBERT vectors of a text: `(tokens, 2)` int64.

        The closing special token has an empty span.
        """
        return self.tokenizer.token_spans(
            text, prefix=self._prefix(role), max_length=self._plain_length(self.max_length)
        )

    def tokens(self, text: str, *, role: Role = "document") -> tuple[npt.NDArray[np.int64], Spans]:
        """The tokens that have a ColBERT vector: `(tokens,)` int64 ids and their `(tokens, 2)` spans."""
        batch = self.pack([text], role=role)
        return batch.ids[batch.keep], self.token_spans(text, role=role)

    def token_weights(self, text: str, *, role: Role = "document") -> npt.NDArray[np.float32]:
        """The lexical weight of each of `tokens`, `(tokens,)` float32 >= 0, before the maximum per token.

        Special and unknown tokens have one too, which `M3Output.lexical` leaves out.
        """
        return self.engine.token_weights(self.pack([text], role=role))

    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens of a text of any length, white space left out."""
        return self.tokenizer.word_spans(text)

    def token(self, token_id: int) -> str:
        """The readable token of an id, as it stands in `M3Output.lexical`."""
        return self.tokenizer.token(token_id)

    def pack(self, texts: Sequence[str], *, role: Role) -> Batch:
        """The tokens that the network sees of some texts, prefix and specials included."""
        return self._pack(texts, role, self.max_length)[0]

    def tokenize(self, texts: Sequence[str], *, role: Role, max_length: int) -> Tokenized:
        """Token ids of each text, prefix and specials included, and how many had to be cut.

        Raises:
            ModelError: If the network has no vector for a token.
        """
        found = self.tokenizer.encode(texts, prefix=self._prefix(role), max_length=max_length)
        if self.info.vocab_size > self._words:  # the tokenizer's own
            last = max((int(ids.max()) for ids in found.ids), default=0)
            if last >= self._words:
                raise ModelError(
                    f"the tokenizer.json of {self.info.name!r} has the token {self.token(last)!r} with id {last}, its "
                    f"weights end at id {self._words - 1}: save the tokenizer and the weights of one model"
                )
        return found

    def _pack(self, texts: Sequence[str], role: Role, max_length: int) -> tuple[Batch, int]:
        """The texts as tokens, and how many of them had to be cut."""
        ids, cut = self.tokenize(texts, role=role, max_length=self._plain_length(max_length))
        dropped = 1 + self.tokenizer.prefix_length(self._prefix(role))
        return pack(ids, dropped=dropped, pooling=self.recipe.pooling, mcls=self.mcls), cut

    def _encode(
        self, texts: Sequence[str], *, role: Role, max_length: int | None, progress: Progress | None
    ) -> M3Output:
        require_texts(texts)
        builder = OutputBuilder(len(texts), self.info, self.colbert_dtype)
        for first, window in self._windows(texts, role, max_length):
            builder.reserve(window.kept)
            for rows, encoded in self._run(window, progress):
                builder.write(first + rows, encoded)
        return builder.output()

    def _run(self, window: Batch, progress: Progress | None) -> Iterator[tuple[Rows, Encoded]]:
        for rows, encoded in self.engine.run(window):
            encoded.require_finite(self.info.name)
            yield rows, encoded
            if progress is not None:
                progress(len(rows))

    def _windows(self, texts: Sequence[str], role: Role, max_length: int | None) -> Iterator[tuple[int, Batch]]:
        """Texts as packed tokens, a window at a time: (number of its first text, its batch)."""
        require_role(role)
        texts = texts if isinstance(texts, list | tuple) else list(texts)  # not all can be cut up (a deque)
        length = self.max_length if max_length is None else self._valid_length(max_length, role)
        batches = WINDOW_BATCHES * len(self.devices)
        starts = _window_starts(texts, characters=batches * self.batch_tokens * CHARACTERS_PER_TOKEN)
        windows = self._packed(texts, starts, role, length)
        return lookahead(windows) if len(starts) > 1 else windows

    def _packed(
        self, texts: Sequence[str], starts: Sequence[int], role: Role, max_length: int
    ) -> Iterator[tuple[int, Batch]]:
        """The windows that begin at `starts`; what had to be cut is told of once, after the last."""
        total = 0
        for start, end in pairwise([*starts, len(texts)]):
            batch, cut = self._pack(texts[start:end], role, max_length)
            self.truncated_texts += cut
            total += cut
            yield start, batch
        if total:
            log.warning(
                "%d of %d texts are longer than max_length=%d tokens and were cut; chunk them, or raise max_length",
                total,
                len(texts),
                max_length,
            )

    def _prefix(self, role: Role) -> str:
        return self.recipe.query_prefix if role == "query" else self.recipe.document_prefix

    def _plain_length(self, max_length: int) -> int:
        """The length that a text may have before CLS tokens are put in."""
        if not self.mcls:
            return max_length
        return (max_length - 1) * MCLS_TOKENS // (MCLS_TOKENS + 1) + SPECIALS

    def _valid_length(self, max_length: int, *roles: Role) -> int:
        max_length = require_whole("max_length", max_length)
        prefix = max(self.tokenizer.prefix_length(self._prefix(role)) for role in roles)
        least = next(n for n in count(SPECIALS + 1) if self._plain_length(n) > SPECIALS + prefix)
        if not least <= max_length <= self._limit:
            beside = f" beside a prefix of {prefix} tokens" if prefix else ""
            raise ConfigurationError(
                f"max_length {max_length} is out of range for this model{beside}: choose {least} to {self._limit}"
            )
        return max_length


def _choose_dtype(backend: Backend, dtype: str | None, device: torch.device) -> torch.dtype:
    if backend not in get_args(Backend):
        raise ConfigurationError(f"backend {backend!r} is unknown: choose one of {', '.join(get_args(Backend))}")
    if backend == "torch":
        return choose_dtype(dtype, device)
    if dtype not in {None, "float32"}:
        raise ConfigurationError(f"backend {backend!r} computes in float32, not in {dtype}: leave dtype out")
    return torch.float32


def _loader(backend: Backend, checkpoint: Checkpoint, dtype: torch.dtype) -> Callable[..., Network]:
    """What loads the network on the device given by `device=`."""
    if backend == "torch":
        return partial(load_model, checkpoint, dtype=dtype)
    from m3rag.encoder.onnx.load import load_onnx  # noqa: PLC0415 - an extra

    return partial(load_onnx, checkpoint, int8=backend == "onnx-int8")


def _prefix_of(instruction: str) -> str:
    if not isinstance(instruction, str):
        raise ConfigurationError(f"an instruction must be text, got {instruction!r}")
    # Without a blank between them its last token would swallow the text's first letters.
    return instruction if not instruction or instruction[-1].isspace() else instruction + " "


def _window_starts(texts: Sequence[str], *, characters: int) -> list[int]:
    sizes = np.cumsum([len(text) + 1 for text in texts])
    if not len(sizes):
        return []
    return np.flatnonzero(np.diff(sizes // characters, prepend=-1)).tolist()


def _fingerprint(of_checkpoint: str, **changes: object) -> str:
    """The checkpoint's, unless options change the numbers it gives."""
    changed = {name: value for name, value in changes.items() if value is not None}
    if not changed:
        return of_checkpoint
    told = json.dumps(changed, sort_keys=True, default=str)
    return hashlib.sha256(f"{of_checkpoint} {told}".encode()).hexdigest()[:16]
