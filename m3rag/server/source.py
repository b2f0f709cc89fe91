"""The text of a document, put together from the chunks that the index holds."""

from __future__ import annotations

from collections.abc import Sequence

from m3rag.types import Chunk


def text_of(chunks: Sequence[Chunk]) -> str:
    """The document's text, each chunk where it stands in it.

    What lies between chunks is white space in the document, and is shown as such; so every offset of
    a chunk or a citation holds. Of chunks that contradict each other (written one by one), the first wins.

    Args:
        chunks: All of a document, in order of position.
    """
    parts: list[str] = []
    at = 0
    for chunk in chunks:
        if chunk.start > at:
            parts.append(" " if chunk.start - at == 1 else "\n" * (chunk.start - at))
            at = chunk.start
        if chunk.end > at:
            new = chunk.text[at - chunk.start :]
            parts.append(new)
            at += len(new)
    return "".join(parts)
