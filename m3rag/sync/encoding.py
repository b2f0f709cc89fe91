"""Chunks to representations: those whose text the index holds are taken from it, the rest is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.output import M3Output
from m3rag.store.protocol import Store
from m3rag.types import Chunk

CHUNKS_AT_ONCE = 64
"""Chunks encoded and written together: enough for full batches, little enough for any memory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Texts whose representations a store holds.

    Attributes:
        store: Where.
        ids: The id of a chunk by its encoded text.
    """

    store: Store
    ids: Mapping[str, str]

    @classmethod
    def of(cls, store: Store, document_id: str | None, texts: Sequence[str]) -> Stored:
        """Those of some texts that are chunks of one document; None for no document."""
        if document_id is None:
            return cls(store, {})
        wanted = set(texts)
        held = {chunk.encoded_text: chunk.id for chunk in store.chunks_of(document_id)}
        return cls(store, {text: id_ for text, id_ in held.items() if text in wanted})


@dataclass(frozen=True, slots=True)
class Encoded:
    """Representations of distinct texts, by text."""

    output: M3Output
    rows: Mapping[str, int]

    @classmethod
    def of(cls, texts: Sequence[str], encoder: Encoder) -> Encoded:
        """Encode each distinct text once."""
        distinct = list(dict.fromkeys(texts))
        return cls(encoder.encode_documents(distinct), {text: row for row, text in enumerate(distinct)})


def output_of(chunks: Sequence[Chunk], encoded: Encoded, stored: Stored | None) -> M3Output:
    """The representations of chunks, in order, each either encoded or stored."""
    texts = [chunk.encoded_text for chunk in chunks]
    if stored is None or not stored.ids:
        return encoded.output[[encoded.rows[text] for text in texts]]
    old = list(dict.fromkeys(text for text in texts if text in stored.ids))
    new = list(dict.fromkeys(text for text in texts if text not in stored.ids))
    parts = [encoded.output[[encoded.rows[text] for text in new]]] if new else []
    if old:
        parts.append(stored.store.representations([stored.ids[text] for text in old]))
    at = {text: row for row, text in enumerate([*new, *old])}
    return M3Output.concatenate(parts)[np.array([at[text] for text in texts], np.int64)]


def missing(chunks: Sequence[Chunk], stored: Stored | None) -> list[str]:
    """The texts of chunks that are not stored."""
    ids = {} if stored is None else stored.ids
    return [chunk.encoded_text for chunk in chunks if chunk.encoded_text not in ids]


def encoded_parts(
    chunks: Sequence[Chunk],
    encoder: Encoder,
    *,
    stored: Stored | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    """Encode a document's chunks as a store takes them, a part at a time.

    Args:
        chunks: In order.
        encoder: The model.
        stored: Texts that need not be encoded.
        on_part: Called with the number of chunks written and of all, each time a part is.
    """
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        part = chunks[start : start + CHUNKS_AT_ONCE]
        yield part, output_of(part, Encoded.of(missing(part, stored), encoder), stored)
        if on_part is not None:
            on_part(start + len(part), len(chunks))
