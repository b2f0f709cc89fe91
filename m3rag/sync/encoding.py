"""Chunks to representations: those whose text the index holds are taken from it, the rest is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.protocol import Store
from m3rag.types import Chunk

CHUNKS_AT_ONCE = 64
"""Chunks encoded and written together: enough for full batches, little enough for any memory."""


@dataclass(frozen=True, slots=True)
class Represented:
    """Representations of distinct texts, by text."""

    output: M3Output
    rows: Mapping[str, int]

    @classmethod
    def of(cls, texts: Sequence[str], encoder: Encoder) -> Represented:
        """Encode each distinct text once."""
        distinct = list(dict.fromkeys(texts))
        return cls(encoder.encode_documents(distinct), {text: row for row, text in enumerate(distinct)})


@dataclass(frozen=True, slots=True)
class Stored:
    """Texts whose representations a store holds.

    Attributes:
        store: Where.
        ids: The id of a chunk by its encoded text; without those that are found to be gone.
    """

    store: Store
    ids: MutableMapping[str, str]

    @classmethod
    def of(cls, store: Store, document_id: str | None, texts: Sequence[str]) -> Stored:
        """Those of some texts that are chunks of one document; None for no document."""
        if document_id is None:
            return cls(store, {})
        wanted = set(texts)
        held = {chunk.encoded_text: chunk.id for chunk in store.chunks_of(document_id)}
        return cls(store, {text: id_ for text, id_ in held.items() if text in wanted})

    def read(self, chunks: Sequence[Chunk]) -> Represented | None:
        """What is stored of the texts of some chunks: they are encoded where another thread has removed it since."""
        texts = list(dict.fromkeys(chunk.encoded_text for chunk in chunks if chunk.encoded_text in self.ids))
        if not texts:
            return None
        try:
            output = self.store.representations([self.ids[text] for text in texts])
        except InputError:
            for text in texts:
                del self.ids[text]
            return None
        return Represented(output, {text: row for row, text in enumerate(texts)})


def output_of(chunks: Sequence[Chunk], encoded: Represented, stored: Represented | None) -> M3Output:
    """The representations of chunks, in order, each either encoded or stored."""
    texts = [chunk.encoded_text for chunk in chunks]
    if stored is None:
        return encoded.output[[encoded.rows[text] for text in texts]]
    new = list(dict.fromkeys(text for text in texts if text not in stored.rows))
    parts = [encoded.output[[encoded.rows[text] for text in new]]] if new else []
    at = {text: row for row, text in enumerate([*new, *stored.rows])}
    return M3Output.concatenate([*parts, stored.output])[np.array([at[text] for text in texts], np.int64)]


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
        # Before `missing`, which then knows what is stored no more.
        held = None if stored is None else stored.read(part)
        yield part, output_of(part, Represented.of(missing(part, stored), encoder), held)
        if on_part is not None:
            on_part(start + len(part), len(chunks))
