"""M3Encoder: texts in, dense + lexical + ColBERT out, in one pass over batches of like length."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from m3rag.encoder.batching import plan_batches
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.lexical import LexicalRows, max_per_token
from m3rag.encoder.model import M3Model, Representations, load_model
from m3rag.encoder.tokenizer import Ids, Spans, Tokenizer
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.output import FloatArray, M3Output
from m3rag.types import ModelInfo

Role = Literal["query", "document"]
Progress = Callable[[int], None]
"""Called with the number of texts that a finished batch held."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class M3Encoder:
    """Encode texts with an M3 checkpoint.

    Safe to share between threads: the forward pass is locked.

    Example:
        >>> encoder = M3Encoder("mini")
        >>> output = encoder.encode_documents(["Ducks swim.", "Les canards nagent."])
        >>> output.dense.shape, output.lexical.shape, output.colbert.shape
        ((2, 384), (2, 250037), (11, 128))

    Args:
        model: `mini` (embedded), a hub id such as `BAAI/bge-m3`, or a checkpoint folder.
        device: As torch names it; a CUDA device if there is one, else the CPU.
        dtype: `float32`, `float16` or `bfloat16`; by default float16 on CUDA and float32 elsewhere,
            since CPUs without native support are six times slower in half precision.
        max_length: Most tokens of a text, specials included; longer ones are cut. By default what
            the checkpoint's recipe says, else the model's limit.
        batch_tokens: Most padded tokens of one forward pass.
        colbert_dtype: Of the token vectors given out; half the memory at no loss that a ranking shows.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Raises:
        ModelError: If the model cannot be had or loaded.
        ConfigurationError: If an option is out of range for the model.
    """

    def __init__(
        self,
        model: str = "BAAI/bge-m3",
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
        colbert_dtype: Literal["float16", "float32"] = "float16",
        cache_folder: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigurationError(f"batch_tokens must be at least 1, got {batch_tokens}")
        checkpoint = Checkpoint.find(model, cache_folder=cache_folder, local_files_only=local_files_only)
        self.recipe = checkpoint.recipe
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        self.batch_tokens = batch_tokens
        self.colbert_dtype = np.dtype(colbert_dtype)
        self.tokenizer = Tokenizer(checkpoint.folder / "tokenizer.json", max_length=_max_length(max_length, checkpoint))
        self.model: M3Model = load_model(checkpoint, dtype=self.dtype, device=self.device)
        self.info = ModelInfo(
            name=model,
            fingerprint=checkpoint.fingerprint(),
            dense_dim=int(self.model.backbone.config.hidden_size),
            vocab_size=max(int(self.model.backbone.config.vocab_size), self.tokenizer.vocab_size),
            colbert_dim=self.model.colbert_linear.out_features,
        )
        self._forward_lock = threading.Lock()

    @property
    def max_length(self) -> int:
        """Most tokens of a text, specials included."""
        return self.tokenizer.max_length

    def encode_queries(self, texts: Sequence[str], *, progress: Progress | None = None) -> M3Output:
        """Encode questions.

        Args:
            texts: Any number of strings; empty strings are allowed.
            progress: Called with the number of texts done since the last call.

        Returns:
            Representations in the order given.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
            ModelError: If one text alone does not fit in memory.
        """
        return self._encode(texts, role="query", progress=progress)

    def encode_documents(self, texts: Sequence[str], *, progress: Progress | None = None) -> M3Output:
        """Encode passages; as `encode_queries`, with the passages' prefix."""
        return self._encode(texts, role="document", progress=progress)

    def encode_dense(
        self, texts: Sequence[str], *, role: Role, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """The dense vectors alone, `(n, d)` float32, without keeping the other two in memory."""
        ids = self._tokenize(texts, role)
        dense = np.empty((len(ids), self.info.dense_dim), np.float32)
        for rows, representations in self._forward(ids, role, progress):
            dense[rows] = representations.dense.cpu().numpy()
        return dense

    def token_spans(self, text: str) -> Spans:
        """Character spans of the ColBERT vectors of a passage: `(tokens, 2)` int64.

        The closing special token has an empty span.
        """
        return self.tokenizer.token_spans(text, prefix=self.recipe.document_prefix)

    def word_spans(self, text: str) -> Spans:
        """Character spans of the tokens of a text of any length, white space left out."""
        return self.tokenizer.word_spans(text)

    def token(self, token_id: int) -> str:
        """The readable token of an id, as it stands in `M3Output.lexical`."""
        return self.tokenizer.token(token_id)

    def _prefix(self, role: Role) -> str:
        return self.recipe.query_prefix if role == "query" else self.recipe.document_prefix

    def _tokenize(self, texts: Sequence[str], role: Role) -> list[Ids]:
        if isinstance(texts, str):
            raise InputError(f"texts must be a list of strings, got one string: {texts[:40]!r}; put it in a list")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {i} is a {type(text).__name__}, must be a string")
        return self.tokenizer.encode(texts, prefix=self._prefix(role))

    def _encode(self, texts: Sequence[str], *, role: Role, progress: Progress | None) -> M3Output:
        ids = self._tokenize(texts, role)
        dropped = 1 + self.tokenizer.prefix_length(self._prefix(role))
        counts = np.array([len(i) - dropped for i in ids], np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        dense = np.empty((len(ids), self.info.dense_dim), np.float32)
        colbert = np.empty((int(offsets[-1]), self.info.colbert_dim), self.colbert_dtype)
        lexical = LexicalRows(len(ids), self.info.vocab_size)
        for rows, representations in self._forward(ids, role, progress):
            dense[rows] = representations.dense.cpu().numpy()
            _scatter(colbert, offsets, rows, representations.colbert.cpu().numpy())
            weights = representations.lexical.cpu().numpy()
            lexical.add(rows, max_per_token([ids[r] for r in rows], weights, dropped, self.tokenizer.unused_ids))
        return M3Output(dense, lexical.to_csr(), colbert, offsets)

    def _forward(
        self, ids: list[Ids], role: Role, progress: Progress | None
    ) -> Iterator[tuple[npt.NDArray[np.int64], Representations]]:
        """Run the model over all texts; yields (text numbers, their representations)."""
        dropped = 1 + self.tokenizer.prefix_length(self._prefix(role))
        pending = plan_batches(np.array([len(i) for i in ids], np.int64), batch_tokens=self.batch_tokens)[::-1]
        while pending:
            rows = pending.pop()
            try:
                representations = self._forward_batch([ids[r] for r in rows], dropped)
            except (torch.OutOfMemoryError, MemoryError) as error:
                if len(rows) == 1:
                    raise ModelError(
                        f"one text of {len(ids[rows[0]])} tokens does not fit in the memory of {self.device}: "
                        f"lower max_length (now {self.max_length})"
                    ) from error
                half = len(rows) // 2
                pending += [rows[half:], rows[:half]]
                continue
            yield rows, representations
            if progress is not None:
                progress(len(rows))

    def _forward_batch(self, ids: list[Ids], dropped: int) -> Representations:
        padded, mask, keep = pad(ids, pad_id=self.tokenizer.pad_id, dropped=dropped)
        with self._forward_lock, torch.inference_mode():
            representations: Representations = self.model(
                padded.to(self.device), mask.to(self.device), keep.to(self.device)
            )
        return representations


def _scatter(
    packed: FloatArray, offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], vectors: FloatArray
) -> None:
    at = 0
    for row in rows:
        start, end = offsets[row], offsets[row + 1]
        packed[start:end] = vectors[at : at + end - start]
        at += end - start


def pad(ids: Sequence[Ids], *, pad_id: int, dropped: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack texts into a batch.

    Args:
        ids: Token ids of each text.
        pad_id: Fills the rest of each row.
        dropped: Tokens at the start of each text that get no ColBERT vector.

    Returns:
        `(B, T)` int64 ids, `(B, T)` bool real tokens, `(B, T)` bool tokens with a ColBERT vector.
    """
    lengths = torch.tensor([len(i) for i in ids])
    padded = torch.full((len(ids), int(lengths.max())), pad_id)
    for row, text in enumerate(ids):
        padded[row, : len(text)] = torch.from_numpy(text)
    positions = torch.arange(padded.shape[1])
    mask = positions < lengths[:, None]
    return padded, mask, mask & (positions >= dropped)


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used on this machine: try device='cpu'") from error


def _dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype {dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _max_length(asked: int | None, checkpoint: Checkpoint) -> int:
    config = checkpoint.config()
    positions = int(config["max_position_embeddings"])
    # RoBERTa's positions start behind the padding id: 8194 of them hold 8192 tokens.
    limit = positions - (int(config["pad_token_id"]) + 1 if "roberta" in config["model_type"] else 0)
    chosen = asked if asked is not None else min(checkpoint.recipe.max_length or limit, limit)
    if not 3 <= chosen <= limit:
        raise ConfigurationError(f"max_length {chosen} is out of range for {checkpoint.name}: choose 3 to {limit}")
    return chosen
