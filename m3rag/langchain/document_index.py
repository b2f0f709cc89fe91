"""M3DocumentIndex: a collection as a LangChain DocumentIndex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import DeleteResponse, UpsertResponse
from langchain_core.indexing.base import DocumentIndex
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, PrivateAttr, field_validator

from m3rag.errors import InputError
from m3rag.langchain.documents import documents_of, to_document_with_scores
from m3rag.langchain.model import whole
from m3rag.langchain.searching import Search, several
from m3rag.langchain.vector_store import M3VectorStore
from m3rag.retrieval import Mode
from m3rag.retrieval.options import require_known
from m3rag.settings import Settings
from m3rag.store.filters import parse_filter
from m3rag.store.protocol import Filter
from m3rag.types import Hit

if TYPE_CHECKING:
    from m3rag.collection import Collection
else:
    Collection = Any

_MADE_FROM: WeakKeyDictionary[Collection, dict[str, Any]] = WeakKeyDictionary()
"""The collections that an index opened by itself, and the fields that it did so from."""


class M3DocumentIndex(DocumentIndex):
    """Documents that are stored by id and found by a question, with all three representations of M3.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        ```

    Instantiate:
        ```python
        from m3rag.langchain import M3DocumentIndex, M3Embeddings

        documents = M3DocumentIndex(embedding=M3Embeddings(model="BAAI/bge-m3"), index="my-index", k=5)
        ```

    Use:
        ```python
        documents.upsert([Document(id="a", page_content="Ducks swim.")])  # {"succeeded": ["a"], "failed": []}
        documents.invoke("Do ducks swim?", k=3, filter={"lang": "en"})
        documents.delete(["a"])
        ```

    As a retriever it gives Documents as `M3Retriever` does: with where they stand, `relevance_score` and `scores`.
    `langchain_core.indexing.index` takes it for a destination. Where there is no index yet, nothing is found.

    Attributes:
        embedding: As for `M3VectorStore`.
        index: As for `M3VectorStore`.
        collection: As for `M3VectorStore`; where none is given, the one that was opened.
        mode: Which legs a question looks at, unless a call says otherwise.
        settings: As for `m3rag.Collection`.
        k: Most Documents for a question, unless a call says otherwise.
        filter: Conditions on the metadata, unless a call says otherwise.
    """

    # Without the input in errors: who gives a key in the wrong place should not find it in a log.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    embedding: Embeddings | None = Field(default=None, exclude=True, repr=False)
    index: Any = None
    collection: Collection | None = Field(default=None, exclude=True, repr=False)
    mode: str | None = None
    settings: Settings | None = Field(default=None, exclude=True, repr=False)
    k: int = Field(default=4, ge=1)
    filter: Filter | None = None
    _documents: M3VectorStore = PrivateAttr()

    @field_validator("k", mode="before")
    @classmethod
    def _is_whole(cls, value: Any) -> int:
        return whole("k", value)

    def model_post_init(self, _: Any) -> None:
        """Open the index."""
        parse_filter(self.filter)
        given = {"embedding": self.embedding, "index": self.index, "settings": self.settings}
        made_from = None if self.collection is None else _MADE_FROM.get(self.collection)
        if made_from is not None and any(value is not None for value in given.values()):
            # LangChain makes a configured copy from all fields: one that differs in none of these shares the index.
            if all(given[name] is value for name, value in made_from.items()):
                given = {}
            else:
                self.collection = None
        self._documents = M3VectorStore(**given, collection=self.collection, mode=self.mode)
        if self.collection is None:
            self.collection = self._documents.collection
            _MADE_FROM[self.collection] = given

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Encode and store Documents; one of an id that is stored takes its place.

        Args:
            items: They are not changed. One without an id gets a random one.
            **kwargs: `batch_size`, as for `M3VectorStore.add_documents`.

        Returns:
            All ids, in order, as `succeeded`.

        Raises:
            InputError: If something is no Document, metadata are not JSON, a text is not Unicode, or an option is
                unknown; nothing is written then.
        """
        require_known("upsert", kwargs, ("batch_size",))
        return UpsertResponse(succeeded=self._documents.add_documents(documents_of(items), **kwargs), failed=[])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Remove what has these ids; what is not stored is left out.

        Raises:
            InputError: (a ValueError) If no ids are given, or an option is.
        """
        require_known("delete", kwargs, ("ids",))
        if ids is None:
            raise InputError("delete of a DocumentIndex needs ids: to remove everything, M3VectorStore(...).delete()")
        stored = [document.id for document in self.get(ids) if document.id is not None]
        self._documents.delete(stored)
        return DeleteResponse(succeeded=stored, failed=[], num_deleted=len(stored), num_failed=0)

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """The Documents of some ids, in the order asked for; what is not stored is left out."""
        require_known("get", kwargs, ("ids",))
        return self._documents.get_by_ids(list(dict.fromkeys(several("ids", ids))))

    def close(self) -> None:
        """Release the index, unless the collection was given. Closing twice does nothing."""
        self._documents.close()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return _documents(self._search.hits(query, *self._options(kwargs)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await run_in_executor(None, _documents, await self._search.ahits(query, *self._options(kwargs)))

    def _options(self, kwargs: dict[str, Any]) -> tuple[int, Filter | None, dict[str, Any]]:
        # `verbose` is the base class's own, which hands it on all the same.
        rest = {key: value for key, value in kwargs.items() if key not in ("k", "filter", "verbose")}
        return kwargs.get("k", self.k), kwargs.get("filter", self.filter), rest

    @property
    def _search(self) -> Search:
        return Search(self._documents.collection, None if self.mode is None else Mode.parse(self.mode))


def _documents(hits: Sequence[Hit]) -> list[Document]:
    return [to_document_with_scores(hit) for hit in hits]
