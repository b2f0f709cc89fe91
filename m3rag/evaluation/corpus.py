"""A labelled corpus as chunks: whole passages, and parts of those that are longer than the model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from m3rag.chunking import Chunker
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.types import Chunk, Document

if TYPE_CHECKING:
    from m3rag.collection import Collection

ROOM_TOKENS = 8
"""What a text needs beyond its own tokens: the specials and a prefix."""

OVERLAP_TOKENS = 32

AT_ONCE = 256
"""Chunks that are written together: it bounds memory, and what an interruption can undo."""

Progress = Callable[[int, int], None]


def chunked(corpus: Mapping[str, str], encoder: Encoder, *, chunk_tokens: int | None = None) -> list[Chunk]:
    """The chunks of a corpus, each passage being a document: a passage is found as high as its best chunk.

    Args:
        corpus: Passage id to text.
        encoder: Counts the tokens.
        chunk_tokens: Passages of more tokens are split into chunks of at most as many; by default as many
            as the model takes, so that only what it would cut is split.

    Returns:
        Chunks in the order of the corpus, at least one of each passage.

    Raises:
        InputError: If there are no passages.
        ConfigurationError: If chunks would be longer than the model takes.
    """
    if not corpus:
        raise InputError("the corpus is empty: give at least one passage")
    limit = encoder.max_length - ROOM_TOKENS
    if chunk_tokens is not None and not 1 <= chunk_tokens <= limit:
        raise ConfigurationError(
            f"chunk_tokens is {chunk_tokens}; it must be from 1 to {limit}, since {encoder.info.name} takes "
            f"{encoder.max_length} tokens, prefix and specials included"
        )
    budget = limit if chunk_tokens is None else chunk_tokens
    chunker = Chunker(chunk_tokens=budget, overlap_tokens=min(OVERLAP_TOKENS, (budget - 1) // 2))
    return [chunk for key, text in corpus.items() for chunk in _parts(key, text, encoder, chunker)]


def take_corpus(
    collection: Collection,
    corpus: Mapping[str, str],
    *,
    chunk_tokens: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Encode a corpus into a collection; chunks that it holds already are not encoded again.

    So an interrupted run is taken up where it stopped. The collection should be for this corpus alone:
    other chunks in it would be found too.

    Args:
        collection: Where to.
        corpus: As for `chunked`.
        chunk_tokens: See there.
        progress: Called with the number of chunks done and of all.

    Raises:
        InputError: If there are no passages.
        ConfigurationError: If chunks would be longer than the model takes.
    """
    chunks = chunked(corpus, collection.encoder, chunk_tokens=chunk_tokens)
    for start in range(0, len(chunks), AT_ONCE):
        part = chunks[start : start + AT_ONCE]
        known = {(chunk.id, chunk.text) for chunk in collection.get([chunk.id for chunk in part])}
        collection.upsert([chunk for chunk in part if (chunk.id, chunk.text) not in known])
        if progress:
            progress(start + len(part), len(chunks))


def corpus_name(encoder: Encoder, corpus: Mapping[str, str], *, chunk_tokens: int | None = None) -> str:
    """A name for the index of a corpus: another one for another model, corpus or size of chunks."""
    parts = (encoder.info.fingerprint, str(encoder.max_length), str(chunk_tokens), hash_of(corpus))
    return f"corpus-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"


def hash_of(texts: Mapping[str, str]) -> str:
    """What a set of named texts is known by: 64 hex digits, equal for equal texts in any order."""
    digest = hashlib.sha256()
    for key in sorted(texts):
        for part in (key, texts[key]):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _parts(key: str, text: str, encoder: Encoder, chunker: Chunker) -> list[Chunk]:
    # A token has at least one character, but for few: short texts need not be tokenized to be counted.
    if 2 * len(text) > chunker.chunk_tokens and len(encoder.word_spans(text)) > chunker.chunk_tokens:
        content_hash = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        parts = chunker.split(Document(id=key, text=text, content_hash=content_hash), encoder)
        if parts:
            return parts
    return [Chunk(id=key, document_id=key, text=text, start=0, end=len(text))]
