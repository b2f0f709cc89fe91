"""M3Retriever: a KnowledgeBase as a LangChain retriever."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, field_validator

from m3rag.chunking.parents import without_reserved
from m3rag.errors import InputError
from m3rag.scoring import Weights
from m3rag.store.protocol import Filter
from m3rag.types import Hit

if TYPE_CHECKING:
    from m3rag.knowledge_base import KnowledgeBase
else:
    # Anything with its `search` will do, such as a test's double.
    KnowledgeBase = Any

_OPTIONS = ("k", "mode", "filter", "weights", "fusion")


class M3Retriever(BaseRetriever):
    """The chunks of a KnowledgeBase that fit a question, by all three representations of M3.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        m3rag ingest papers/ --index my-index
        ```

    Instantiate:
        ```python
        from m3rag import KnowledgeBase
        from m3rag.langchain import M3Retriever

        retriever = M3Retriever(knowledge_base=KnowledgeBase("my-index"), k=5)
        ```

    Use:
        ```python
        documents = retriever.invoke("Who proved it first?")
        documents = retriever.invoke("Who proved it first?", k=3, filter={"document_id": "a.pdf"})
        documents = await retriever.ainvoke("Who proved it first?", mode="dense+lexical")
        ```

    Each option may be given here, and again in a call, where it takes the place of the one given
    here. Documents are new objects: `page_content` is the chunk's text and `id` its id; the
    metadata are the chunk's own and `document_id`, `source` (the document's id, unless the chunk's
    own metadata name a source), `page` (from 1; left out for formats without pages), `start` and
    `end` (characters in the document's text), `headings`, `relevance_score` (what ordered the
    documents) and `scores` (`dense`, `lexical`, `colbert`, `bm25`, `rerank`; None for what was not looked at).

    Attributes:
        knowledge_base: Where to search.
        k: Most documents to give; None for the knowledge base's setting.
        mode: `dense`, `lexical`, `colbert`, `dense+lexical`, `all`, `bm25` or `dense+bm25`; None for the setting.
        filter: Conditions on the chunks' metadata, see `m3rag.store.Filter`.
        weights: A preset's name, `"1/0.3/1"`, or Weights; None for the setting.
        fusion: `weighted`, `minmax`, `zscore` or `rrf`; None for `weighted` (`minmax` with BM25).
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    knowledge_base: KnowledgeBase = Field(exclude=True, repr=False)
    k: int | None = 10
    mode: str | None = None
    filter: Filter | None = None
    weights: Weights | str | None = None
    fusion: str | None = None

    @field_validator("knowledge_base")
    @classmethod
    def _can_search(cls, value: Any) -> Any:
        if not callable(getattr(value, "search", None)):
            raise ValueError(f"knowledge_base is {value!r}, must be an m3rag.KnowledgeBase: KnowledgeBase('my-index')")
        return value

    @field_validator("k")
    @classmethod
    def _positive(cls, value: int | None) -> int | None:
        _require_positive(value)
        return value

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._search(query, kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # The base class's twin takes no call-time options.
        return await run_in_executor(None, self._search, query, kwargs)

    def _search(self, query: str, kwargs: dict[str, Any]) -> list[Document]:
        # `verbose` is the base class's own, which hands it on all the same.
        unknown = [key for key in kwargs if key not in (*_OPTIONS, "verbose")]
        if unknown:
            raise InputError(f"unknown option {', '.join(unknown)}: M3Retriever takes {', '.join(_OPTIONS)}")
        options = {key: kwargs.get(key, getattr(self, key)) for key in _OPTIONS}
        _require_positive(options["k"])
        return [_document(hit) for hit in self.knowledge_base.search(query, **options)]


def _require_positive(k: int | None) -> None:
    if k is not None and (not isinstance(k, int) or k < 1):
        raise InputError(f"k must be a whole number from 1, got {k!r}")


def _document(hit: Hit) -> Document:
    chunk = hit.chunk
    metadata = deepcopy(without_reserved(chunk.metadata))
    metadata.setdefault("source", chunk.document_id)
    metadata |= {"document_id": chunk.document_id, "start": chunk.start, "end": chunk.end}
    metadata |= {"headings": list(chunk.headings), "relevance_score": hit.score, "scores": asdict(hit.scores)}
    if chunk.page is not None:
        metadata["page"] = chunk.page
    return Document(page_content=chunk.text, id=chunk.id, metadata=metadata)
