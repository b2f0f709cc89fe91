"""LangChain's Documents as chunks of a collection, and back.

A chunk that came in as a Document gives exactly that Document again. One that came in by another door
(files, LlamaIndex) gives one whose metadata say where it stands: `document_id`, `source`, `page`, `start`,
`end` and `headings`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict
from datetime import date
from typing import Any, TypeGuard

from langchain_core.documents import Document

from m3rag.chunking.parents import RESERVED, without_reserved
from m3rag.errors import InputError
from m3rag.store.filters import DOCUMENT_ID
from m3rag.types import Chunk, Hit

DOOR = RESERVED + "langchain"
"""The key of a chunk that came in as a Document.

It holds what of the Document's metadata would mean something to m3rag: a splitter's note of the passage
around a chunk is true of the text that was split, which may be one page of many of the same source.
"""


def documents_of(given: Iterable[Document]) -> list[Document]:
    """A list of the Documents that are given, by a generator perhaps.

    Raises:
        InputError: If it is one Document or no collection, or holds something that is no Document.
    """
    if isinstance(given, Document | str) or not isinstance(given, Iterable):
        raise InputError(f"documents is a {type(given).__name__}, must be a list of Documents")
    documents = list(given)
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(
                f"document {place} is a {type(document).__name__}, must be a Document: make it one, "
                'Document(page_content="...")'
            )
    return documents


def to_chunk(document: Document, id: str) -> Chunk:
    """A Document as a chunk, which joins the document that its `document_id` names, else its `source`.

    Without either it is a document of its own. A `document_id` that is a whole number names one as text.
    `page` (from 1) and `headings` are taken from the metadata where they are of that kind, the span from
    `start` and `end` or from `start_index`. Dates become ISO 8601, which filters understand.

    Args:
        document: It is not changed.
        id: The chunk's id, whatever the Document's is.

    Raises:
        InputError: If a value of the metadata is not JSON.
    """
    metadata = _as_json(document.metadata, f"document {id!r}")
    text = document.page_content
    start, end = _span(metadata, len(text))
    taken = {key: value for key, value in metadata.items() if key.startswith(RESERVED)}
    return Chunk(
        id=id,
        document_id=document_id_of(metadata.get(DOCUMENT_ID), metadata.get("source"), id),
        text=text,
        start=start,
        end=end,
        page=_page(metadata),
        headings=_headings(metadata),
        metadata=deepcopy({**without_reserved(metadata), DOOR: taken}),
    )


def document_id_of(given: Any, *others: Any) -> str:
    """What the metadata give as `document_id`, a whole number as text, else the first other name that is one."""
    names = (str(given) if isinstance(given, int) and not isinstance(given, bool) else given, *others)
    return next(name for name in names if isinstance(name, str) and name)


def to_document(chunk: Chunk) -> Document:
    """A chunk as a new Document with its id: the one that came in, or one that says where the chunk stands."""
    taken = chunk.metadata.get(DOOR)
    metadata = deepcopy(without_reserved(chunk.metadata))
    if taken is not None:
        metadata |= deepcopy(taken)
    else:
        metadata.setdefault("source", chunk.document_id)
        metadata |= _place(chunk)
    return Document(page_content=chunk.text, id=chunk.id, metadata=metadata)


def to_document_with_scores(hit: Hit) -> Document:
    """A hit as a new Document: where its chunk stands, `relevance_score` and `scores`, beside its metadata.

    `relevance_score` is what ordered the hits, `scores` those of each leg and of a reranker, None for what was not
    looked at. What the metadata of a Document that came in say of its place is left as it is.
    """
    document = to_document(hit.chunk)
    place = {"source": hit.chunk.document_id, **_place(hit.chunk)}
    document.metadata = {**place, **document.metadata, **scores_of(hit)}
    return document


def scores_of(hit: Hit) -> dict[str, Any]:
    """The keys that a Document has of a hit's scores."""
    return {"relevance_score": hit.score, "scores": asdict(hit.scores)}


def _place(chunk: Chunk) -> dict[str, Any]:
    place: dict[str, Any] = {"document_id": chunk.document_id, "start": chunk.start, "end": chunk.end}
    place["headings"] = list(chunk.headings)
    return place if chunk.page is None else {**place, "page": chunk.page}


def _span(metadata: Mapping[str, Any], length: int) -> tuple[int, int]:
    start, end, index = (metadata.get(key) for key in ("start", "end", "start_index"))
    if _is_count(start) and _is_count(end) and end - start == length:
        return start, end
    # -1 is what LangChain's splitters say where they have lost the place.
    return (index, index + length) if _is_count(index) else (0, length)


def _page(metadata: Mapping[str, Any]) -> int | None:
    page = metadata.get("page")
    if not _is_count(page):
        return None
    # LangChain's PDF loaders count from 0, and they alone say how many pages there are.
    if _is_count(metadata.get("total_pages")):
        page += 1
    return page if page >= 1 else None


def _headings(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    headings = metadata.get("headings")
    if isinstance(headings, list | tuple) and all(isinstance(heading, str) for heading in headings):
        return tuple(headings)
    return ()


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _dates_as_text(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            name = key if isinstance(key, str) else json.dumps(key)  # as JSON has it
            if name in found:
                raise TypeError(f"two of its keys are {name!r} there")
            found[name] = _dates_as_text(inner)
        return found
    return [_dates_as_text(inner) for inner in value] if isinstance(value, list | tuple) else value


def _as_json(metadata: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InputError(f"{owner}: the metadata key {key!r} is no string: make it one")
        try:
            found[key] = _dates_as_text(value)
            json.dumps(found[key], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{owner}: the metadata of {key!r} are not JSON ({error}), got {value!r:.80}: make them text, numbers, "
                "true, false, null, or lists and dicts of these, or leave them out"
            ) from error
    return found
