"""What a LangChain vector store over a collection writes, removes and gives by id."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from m3rag.collection import CHUNKS_AT_ONCE, Collection
from m3rag.errors import InputError
from m3rag.langchain.documents import documents_of, to_chunk, to_document
from m3rag.langchain.model import listed, whole
from m3rag.langchain.searching import several
from m3rag.retrieval.options import require_known
from m3rag.store.payload import require_storable
from m3rag.store.protocol import Filter


class WritableStore(VectorStore):
    """The half of `M3VectorStore` that holds Documents.

    Attributes:
        collection: Where they are.
    """

    collection: Collection

    def add_documents(
        self,
        documents: list[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and store Documents, which are not changed; one of an id that is stored takes its place.

        Args:
            documents: Any number. Metadata must be JSON, which knows no tuples: one comes back as a list.
            ids: One a Document, in place of its own; None or "" for its own. A Document without any gets a random one.
                Where an id comes twice, the last Document counts.
            batch_size: Most Documents encoded and written together; by default 256.
            **kwargs: There are no others.

        Returns:
            The ids, in order.

        Raises:
            InputError: If something is no Document, there are not as many ids as Documents, metadata are not JSON,
                a text is not Unicode, or an option is unknown. Nothing is written then.
        """
        require_known("add_documents", kwargs, ("ids", "batch_size"))
        size = CHUNKS_AT_ONCE if batch_size is None else whole("batch_size", batch_size)
        if size < 1:
            raise InputError(f"batch_size must be at least 1, got {size}")
        documents = documents_of(documents)
        names = _ids(documents, ids)
        chunks = {id: to_chunk(document, id) for document, id in zip(documents, names, strict=True)}
        waiting = list(chunks.values())
        require_storable(waiting)
        for start in range(0, len(waiting), size):
            self.collection.upsert(waiting[start : start + size])
        return names

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and store texts with their metadata; as `add_documents`.

        Raises:
            InputError: As `add_documents`, and if there are not as many metadatas as texts, or one is no mapping.
        """
        texts = listed(texts)
        given = [] if metadatas is None else several("metadatas", metadatas)
        for place, metadata in enumerate(given):
            if metadata is not None and not isinstance(metadata, Mapping):
                raise InputError(
                    f"metadatas[{place}] is {metadata!r:.40}, must be a dict such as {{'source': 'a.pdf'}}"
                )
        if given and len(given) != len(texts):
            raise InputError(f"there are {len(texts)} texts and {len(given)} metadatas: give one a text")
        documents = [
            Document(page_content=text, metadata=dict(metadata or {}))
            for text, metadata in zip(texts, given or repeat(None), strict=False)
        ]
        return self.add_documents(documents, ids=ids, **kwargs)

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """As `add_documents`, on a thread."""
        return await run_in_executor(None, self.add_documents, documents, **kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As `add_texts`, on a thread."""
        return await run_in_executor(None, self.add_texts, texts, metadatas, ids=ids, **kwargs)

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Remove what has these ids, or what passes a filter, or, without either, everything.

        Args:
            ids: What is not stored is left out.
            filter: Conditions on the metadata, in place of ids.
            **kwargs: There are no others.

        Returns:
            True.

        Raises:
            InputError: If both are given, the filter makes no sense, or an option is unknown.
        """
        require_known("delete", kwargs, ("ids", "filter"))
        if ids is not None or filter is not None:
            self.collection.delete(None if ids is None else several("ids", ids), filter=filter)
        elif self.collection.exists:
            store = self.collection.store
            store.delete_documents([record.id for record in store.documents()])
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The Documents of some ids, in the order asked for; what is not stored is left out."""
        return [to_document(chunk) for chunk in self.collection.get(several("ids", ids))]


def _ids(documents: Sequence[Document], ids: Sequence[str | None] | None) -> list[str]:
    given: list[str | None] = [None] * len(documents) if ids is None else several("ids", ids)
    if len(given) != len(documents):
        raise InputError(f"there are {len(documents)} documents and {len(given)} ids: give one a document")
    odd = [id for id in given if id is not None and not isinstance(id, str)]
    if odd:
        raise InputError(f"an id is {odd[0]!r}, a {type(odd[0]).__name__}: ids are strings")
    return [id or document.id or str(uuid.uuid4()) for document, id in zip(documents, given, strict=True)]
