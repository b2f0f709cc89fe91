"""What any LangChain retriever found, as the passages that m3rag reranks and cites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.documents import Document

from m3rag.langchain.documents import document_id_of, to_chunk
from m3rag.types import Chunk, Hit

PLACE = ("source", "start", "end", "start_index", "page", "total_pages", "headings")
"""The keys that say where a document stands; the others may hold anything, also what no index takes."""


def passages_of(documents: Sequence[Document]) -> list[Chunk]:
    """Documents as passages with ids of their own, in the order given.

    What they are passages of is said by `document_id`, else `source`, else their id. An id that several
    documents have, or none, is replaced by the place in the list: what is told apart by its id must not
    be taken for another.
    """
    own = {document.id for document in documents}
    taken: set[str] = set()
    passages = []
    for place, document in enumerate(documents):
        id = document.id
        if not id or id in taken:
            id = f"document {place:06d}"
            while id in own:
                id += "'"
        taken.add(id)
        passages.append(_passage(document, id))
    return passages


def hits_of(documents: Sequence[Document]) -> list[Hit]:
    """Documents as hits, best first, as which a reranker or a prompt takes them."""
    return [Hit(passage, 0.0) for passage in passages_of(documents)]


def _passage(document: Document, id: str) -> Chunk:
    metadata = {key: value for key in PLACE if _is_plain(value := document.metadata.get(key))}
    chunk = to_chunk(Document(page_content=document.page_content, metadata=metadata), id)
    name = document_id_of(document.metadata.get("document_id"), metadata.get("source"), document.id, id)
    return replace(chunk, document_id=name, metadata={})


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int)) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    )
