"""M3Retriever: a Collection or KnowledgeBase as a LangChain retriever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from m3rag.chunking import widened
from m3rag.errors import InputError
from m3rag.langchain.documents import to_document_with_scores
from m3rag.langchain.model import whole
from m3rag.retrieval.options import SearchOptions, require_known, require_usable
from m3rag.scoring import Weights
from m3rag.store.filters import parse_filter
from m3rag.store.protocol import Filter
from m3rag.types import Hit

if TYPE_CHECKING:
    from m3rag.collection import Collection
else:
    # Anything with its methods will do, such as a test's double.
    Collection = Any

_OPTIONS = tuple(SearchOptions.__annotations__)
_AFTERWARDS = ("widen", "explain")


class M3Retriever(BaseRetriever):
    """The chunks of an index that fit a question, by all three representations of M3.

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
        tool = retriever.as_tool(name="papers", description="Searches the papers.")
        ```

    Each option may be given here, and again in a call, where it takes the place of the one given
    here. Asynchronous calls made at the same time share the model's forward passes.

    Documents are new objects: `page_content` is the chunk's text and `id` its id; the metadata are
    the chunk's own and `document_id`, `source` (the document's id, unless the chunk's own metadata
    name a source), `page` (from 1; left out for formats without pages), `start` and `end`
    (characters in the document's text), `headings`, `relevance_score` (what ordered the documents),
    `scores` (`dense`, `lexical`, `colbert`, `bm25`, `rerank`; None for what was not looked at) and,
    if asked for, `explanation`. So the same chunk found by two questions is two unequal documents: for what drops equal
    ones, such as MultiQueryRetriever, take `M3VectorStore(...).as_retriever()`, whose documents have no scores.

    Attributes:
        knowledge_base: Where to search: a `KnowledgeBase` or a `Collection`.
        k: Most documents to give; None for the setting.
        mode: `dense`, `lexical`, `colbert`, `dense+lexical`, `all`, `bm25` or `dense+bm25`; None for the setting.
        filter: Conditions on the chunks' metadata, see `m3rag.store.Filter`.
        weights: A preset's name, `"1/0.3/1"`, or Weights; None for the setting.
        alpha: Instead of weights, the part of the dense leg beside a keyword leg, [0, 1].
        fusion: `weighted`, `minmax`, `zscore` or `rrf`; None for `weighted` (`minmax` with BM25).
        rrf_k: The constant of `rrf`, >= 0.
        score_threshold: Leaves out documents of a lower `relevance_score`.
        diversity: From 0 (none) to 1: how much a document loses for being like those before it.
        group_by_document: Most chunks of one document.
        reranker: An `m3rag.reranking.Reranker`, which orders the best `rerank_top` anew.
        rerank_top: How many the reranker is given.
        widen: Whether small chunks (of the strategies `small-to-big` and `sentence-window`) are given with
            the passage around them, which answers are better made from.
        explain: Whether `metadata["explanation"]` holds the five tokens that gave most to the lexical
            score, as `{"token": ..., "contribution": ...}`; costs one more encoded question.

    Raises:
        ValidationError: (a ValueError) If an option is unknown, a number is out of its range, the filter makes no
            sense, or there is nothing to search in.
        ConfigurationError: If mode, weights or fusion are unknown, or do not go together.

    When run, it raises IndexMissingError where there is no index yet.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    knowledge_base: Collection = Field(exclude=True, repr=False)
    k: int | None = 10
    mode: str | None = None
    filter: Filter | None = None
    weights: Weights | str | None = None
    alpha: float | None = None
    fusion: str | None = None
    rrf_k: float | None = None
    score_threshold: float | None = None
    diversity: float | None = None
    group_by_document: int | None = None
    reranker: Any = Field(default=None, exclude=True, repr=False)
    rerank_top: int | None = None
    widen: bool = False
    explain: bool = False

    @field_validator("knowledge_base")
    @classmethod
    def _can_search(cls, value: Any) -> Any:
        if not callable(getattr(value, "search", None)) or not callable(getattr(value, "asearch", None)):
            raise ValueError(f"knowledge_base is {value!r}, must be an m3rag.KnowledgeBase: KnowledgeBase('my-index')")
        return value

    @field_validator("k", "group_by_document", "rerank_top", mode="before")
    @classmethod
    def _is_whole(cls, value: Any, info: ValidationInfo) -> Any:
        return None if value is None else whole(str(info.field_name), value)

    @field_validator("reranker")
    @classmethod
    def _can_rerank(cls, value: Any) -> Any:
        _require_reranker(value)
        return value

    def model_post_init(self, _: Any) -> None:
        """Check the options, which else the first search would do."""
        parse_filter(self.filter)
        require_usable(cast("SearchOptions", {key: getattr(self, key) for key in _OPTIONS}))

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        options = self._options(kwargs)
        return self._documents(query, self.knowledge_base.search(query, **options), kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # The base class's twin takes no call-time options.
        options = self._options(kwargs)
        hits = await self.knowledge_base.asearch(query, **options)
        return await run_in_executor(None, self._documents, query, hits, kwargs)

    def _options(self, kwargs: dict[str, Any]) -> SearchOptions:
        # `verbose` is the base class's own, which hands it on all the same.
        require_known("M3Retriever", [key for key in kwargs if key != "verbose"], (*_OPTIONS, *_AFTERWARDS))
        options = {key: kwargs.get(key, getattr(self, key)) for key in _OPTIONS}
        _require_reranker(options["reranker"])
        return cast("SearchOptions", options)

    def _documents(self, query: str, hits: list[Hit], kwargs: dict[str, Any]) -> list[Document]:
        widen, explain = (kwargs.get(key, getattr(self, key)) for key in _AFTERWARDS)
        shown = widened(hits, self.knowledge_base.store.chunks_of) if widen else hits
        documents = [to_document_with_scores(hit) for hit in shown]
        if explain:
            for document, tokens in zip(documents, self.knowledge_base.explain(query, shown), strict=True):
                document.metadata["explanation"] = [match._asdict() for match in tokens]
        return documents


def _require_reranker(reranker: Any) -> None:
    if reranker is not None and not callable(getattr(reranker, "rerank", None)):
        raise InputError(
            f"reranker is {reranker!r}, must be an m3rag.reranking.Reranker such as ColbertReranker(knowledge_base."
            "encoder); a LangChain compressor goes into ContextualCompressionRetriever or create_rag_chain"
        )
