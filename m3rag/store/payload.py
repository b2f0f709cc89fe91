"""Chunks and document records as JSON objects, the form in which stores keep them.

Metadata is kept as JSON text: numbers of any size, key order and odd keys come back exactly,
whatever an engine does to nested objects, and no key of a user can collide with one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from m3rag.errors import InputError
from m3rag.store.filters import filterable
from m3rag.store.protocol import DocumentRecord
from m3rag.store.terms import is_unicode, keys, numbers, shown, terms, times
from m3rag.types import Chunk, Metadata

Payload = dict[str, Any]


def chunk_to_payload(chunk: Chunk) -> Payload:
    """A chunk as a JSON object, with what filters match (see `m3rag.store.filters`).

    `terms` are keywords of key and value for `AnyOf`, `keys` keywords of keys for `Exists`; under
    `numbers` and `times` stand the values that a `Range` compares, by the digest of their key.

    Raises:
        InputError: If the metadata is not JSON, or a text is not valid Unicode.
    """
    _check_unicode(f"chunk {chunk.id!r}", chunk.id, chunk.document_id, chunk.text, *chunk.headings)
    metadata = _metadata_json(chunk.metadata, f"chunk {chunk.id!r}")
    asked = filterable(chunk)
    return {
        "id": chunk.id,
        "document_id": chunk.document_id,
        "text": chunk.text,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "headings": list(chunk.headings),
        "metadata": metadata,
        "terms": terms(asked),
        "keys": keys(asked),
        "numbers": numbers(asked),
        "times": times(asked),
    }


def require_storable(chunks: Sequence[Chunk]) -> None:
    """Refuse, before the first of many chunks is encoded and written, what a store would refuse of a later one.

    Raises:
        InputError: If an id comes twice, metadata are not JSON, or a text is not valid Unicode.
    """
    require_unique(chunks)
    for chunk in chunks:
        chunk_to_payload(chunk)


def require_unique(chunks: Sequence[Chunk]) -> None:
    """Refuse an id that comes twice.

    Raises:
        InputError: If one does.
    """
    seen: set[str] = set()
    for chunk in chunks:
        if chunk.id in seen:
            raise InputError(f"upsert: two chunks have the id {chunk.id!r}; ids must be unique")
        seen.add(chunk.id)


def chunk_from_payload(payload: Mapping[str, Any]) -> Chunk:
    """The chunk that `chunk_to_payload` was given."""
    return Chunk(
        id=payload["id"],
        document_id=payload["document_id"],
        text=payload["text"],
        start=payload["start"],
        end=payload["end"],
        page=payload["page"],
        headings=tuple(payload["headings"]),
        metadata=json.loads(payload["metadata"]),
    )


def record_to_payload(record: DocumentRecord) -> Payload:
    """A document's record as a JSON object.

    Raises:
        InputError: If the metadata is not JSON, or a text is not valid Unicode.
    """
    _check_unicode(f"document {record.id!r}", record.id, record.title, record.version, record.source)
    return {
        "id": record.id,
        "title": record.title,
        "version": record.version,
        "chunks": record.chunks,
        "source": record.source,
        "page_starts": list(record.page_starts),
        "metadata": _metadata_json(record.metadata, f"document {record.id!r}"),
    }


def record_from_payload(payload: Mapping[str, Any]) -> DocumentRecord:
    """The record that `record_to_payload` was given."""
    return DocumentRecord(
        id=payload["id"],
        title=payload["title"],
        version=payload["version"],
        chunks=payload["chunks"],
        source=payload["source"],
        page_starts=tuple(payload["page_starts"]),
        metadata=json.loads(payload["metadata"]),
    )


def _metadata_json(metadata: Metadata, owner: str) -> str:
    # JSON would make text of other keys, which a filter on them would then not find.
    odd = [key for key in metadata if not isinstance(key, str)]
    if odd:
        raise InputError(f"{owner}: metadata keys must be strings, got {odd[0]!r:.80}")
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{owner}: the metadata must be JSON values ({error}): {shown(metadata, length=200)}"
        ) from error


def _check_unicode(owner: str, *texts: str) -> None:
    for text in texts:
        if not is_unicode(text):
            raise InputError(f"{owner}: not valid Unicode in {text!r:.80}: rename the file or clean the text")
