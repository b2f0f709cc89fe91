"""What counts tokens for a splitter that may have no model: an encoder, or the tokenizer of one."""

from __future__ import annotations

from m3rag.chunking.chunker import SpanSource
from m3rag.errors import InputError


def tokenizer_of(model: str, *, cache_folder: str | None = None, local_files_only: bool = False) -> SpanSource:
    """The tokenizer of a model, without loading its weights.

    Args:
        model: `mini`, a hub id or a checkpoint folder.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Raises:
        ModelError: If the model cannot be had.
    """
    # Imported here: a splitter that is given an encoder needs neither.
    from m3rag.encoder.checkpoint import Checkpoint  # noqa: PLC0415
    from m3rag.encoder.tokenizer import Tokenizer  # noqa: PLC0415

    checkpoint = Checkpoint.find(model, cache_folder=cache_folder, local_files_only=local_files_only)
    return Tokenizer(checkpoint.folder / "tokenizer.json")


def require_span_source(encoder: object) -> SpanSource:
    """The encoder, if it counts tokens.

    Raises:
        InputError: If it has no `word_spans`.
    """
    if not callable(getattr(encoder, "word_spans", None)):
        raise InputError(f"encoder is a {type(encoder).__name__}, must be an m3rag encoder such as M3Encoder('mini')")
    return encoder  # type: ignore[return-value]
