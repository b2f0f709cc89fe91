"""From a small chunk that was found to the passage it stands in, word for word as the document has it.

A chunk with a parent remembers the parent's span and the white space behind itself, so that the text
of any span can be put together from the chunks a store holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from m3rag.errors import InputError
from m3rag.types import Chunk, Hit, Metadata

RESERVED = "m3rag:"
"""What keys of a chunk's metadata begin with that no document may set."""

PARENT = RESERVED + "parent"
"""The parent's span in the document's text, `[start, end]`."""

GAP = RESERVED + "gap"
"""The white space between the chunk and the next."""

ChunksOf = Callable[[str], Sequence[Chunk]]
"""All chunks of a document by its id, in order of position: a store's `chunks_of`."""

Span = tuple[int, int]


def require_unreserved(metadata: Metadata, owner: str) -> None:
    """Refuse metadata of a document that would pass for ours.

    Raises:
        InputError: If a key begins with `m3rag:`.
    """
    taken = sorted(key for key in metadata if isinstance(key, str) and key.startswith(RESERVED))
    if taken:
        raise InputError(f"{owner}: the metadata key {taken[0]!r} is reserved: rename it, or leave it out")


def with_parents(chunks: Sequence[Chunk], parents: Sequence[Span | None], text: str) -> list[Chunk]:
    """The chunks, those that have a parent with its span and their gap in their metadata."""
    following = [chunk.start for chunk in chunks[1:]] + [chunks[-1].end if chunks else 0]
    found = []
    for chunk, parent, after in zip(chunks, parents, following, strict=True):
        if parent is None:
            found.append(chunk)
            continue
        extra: dict[str, Any] = {PARENT: list(parent), GAP: text[chunk.end : after]}
        found.append(replace(chunk, metadata={**chunk.metadata, **extra}))
    return found


def parent_of(chunk: Chunk) -> Span | None:
    """The span in the document's text that answers are made from; None for a chunk that is all there is."""
    span = chunk.metadata.get(PARENT)
    return None if span is None else (int(span[0]), int(span[1]))


def without_reserved(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as the document had them."""
    return {key: value for key, value in metadata.items() if not key.startswith(RESERVED)}


def widened(hits: Iterable[Hit], chunks_of: ChunksOf) -> list[Hit]:
    """Hits with the passages that answers are made from in place of the chunks that were found.

    No two passages share text: a hit that stands in the passage of a better one is left out, and what a
    better hit's passage holds is left out of a later one. A hit without a parent stays as it is.

    Args:
        hits: Best first.
        chunks_of: A store's `chunks_of`.

    Returns:
        New hits, whose chunk has the id of the chunk found, `start`, `end`, `page` and `text` of the
        passage, exactly as the document has it, and the headings that all of it stands below. Where chunks
        of a passage were removed, it is what is left around the chunk found, without a gap.

    Raises:
        InputError: If a chunk found is not stored any more.
    """
    return [
        replace(hit, chunk=_joined(hit.chunk, within)) if within else hit for hit, within in _passages(hits, chunks_of)
    ]


def siblings(hits: Iterable[Hit], chunks_of: ChunksOf) -> list[Hit]:
    """Hits with every chunk of the passages that answers are made from, each as the store holds it.

    For what needs the stored vectors of a passage, such as `Extractive`. The passages are those of `widened`; all
    chunks of one have the score of the hit.

    Args:
        hits: Best first.
        chunks_of: A store's `chunks_of`.

    Raises:
        InputError: As in `widened`.
    """
    found: list[Hit] = []
    for hit, within in _passages(hits, chunks_of):
        found += [hit if chunk.id == hit.chunk.id else Hit(chunk, hit.score) for chunk in within or (hit.chunk,)]
    return found


def _passages(hits: Iterable[Hit], chunks_of: ChunksOf) -> Iterator[tuple[Hit, Sequence[Chunk]]]:
    """Each hit that is left, with the chunks of its passage; none for a hit without a parent."""
    documents: dict[str, Sequence[Chunk]] = {}
    taken: dict[str, list[Span]] = {}
    for hit in hits:
        chunk, span = hit.chunk, parent_of(hit.chunk)
        if span is None:
            yield hit, ()
            continue
        if chunk.document_id not in documents:
            documents[chunk.document_id] = chunks_of(chunk.document_id)
        others = taken.setdefault(chunk.document_id, [])
        if any(start <= chunk.start < end for start, end in others):
            continue
        within = _within(documents[chunk.document_id], chunk, span)
        after = max((end for _, end in others if end <= chunk.start), default=span[0])
        before = min((start for start, _ in others if start >= chunk.end), default=span[1])
        left = [c for c in within if c.start >= after and c.end <= before]
        others.append((left[0].start, left[-1].end))
        yield hit, left


def _within(chunks: Sequence[Chunk], found: Chunk, span: Span) -> Sequence[Chunk]:
    """The chunks of a passage, as far as those around the one found are stored without a gap."""
    first, last = (bisect_left(chunks, place, key=lambda c: c.start) for place in span)
    within = [c for c in chunks[first:last] if c.end <= span[1] and GAP in c.metadata]
    begin = next((i for i, c in enumerate(within) if (c.id, c.start) == (found.id, found.start)), None)
    if begin is None:
        raise InputError(
            f"the passage around {found.id!r} is not in the index any more: its document has changed; search again"
        )
    stop = begin + 1
    while begin > 0 and _join(within[begin - 1], within[begin]):
        begin -= 1
    while stop < len(within) and _join(within[stop - 1], within[stop]):
        stop += 1
    return within[begin:stop]


def _join(one: Chunk, two: Chunk) -> bool:
    """Whether nothing of the document stood between two chunks but the white space that the first remembers."""
    return one.end + len(one.metadata[GAP]) == two.start


def _joined(found: Chunk, within: Sequence[Chunk]) -> Chunk:
    text = "".join(c.text + str(c.metadata[GAP]) for c in within[:-1]) + within[-1].text
    headings = within[0].headings
    for chunk in within[1:]:
        same = [a == b for a, b in zip(headings, chunk.headings, strict=False)]
        headings = headings[: same.index(False) if False in same else len(same)]
    return replace(
        found,
        text=text,
        start=within[0].start,
        end=within[-1].end,
        page=within[0].page,
        headings=headings,
        metadata=without_reserved(found.metadata),
    )
