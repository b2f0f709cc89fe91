"""M3Retriever: a Collection or KnowledgeBase as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3rag.errors import InputError
from m3rag.llama_index.filters import condition_of
from m3rag.llama_index.nodes import to_scored_node
from m3rag.llama_index.search import Search
from m3rag.retrieval import SearchOptions
from m3rag.retrieval.options import count, require_known, require_usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import IndexNode
    from llama_index.core.vector_stores import MetadataFilters

    from m3rag.collection import Collection
    from m3rag.store.protocol import Filter
    from m3rag.types import Hit

_OPTIONS = sorted(set(SearchOptions.__annotations__) - {"k", "filter"})


class M3Retriever(BaseRetriever):
    """The chunks of an index that fit a question, by all three representations of M3.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        m3rag ingest papers/ --index my-index
        ```

    Instantiate:
        ```python
        from m3rag import KnowledgeBase
        from m3rag.llama_index import M3Retriever

        retriever = M3Retriever(KnowledgeBase("my-index"), similarity_top_k=5)
        ```

    Use:
        ```python
        nodes = retriever.retrieve("Who proved it first?")
        nodes = await retriever.aretrieve("Who proved it first?")
        engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
        ```

    Asynchronous calls made at the same time share the model's forward passes.

    Nodes are new objects: `id_` is the chunk's id, `text` its text, `start_char_idx` and
    `end_char_idx` its place in the document, which is the node's SOURCE; a node that LlamaIndex
    wrote comes back with all that it had. The metadata are the chunk's own and `document_id`, `page`
    (from 1; left out for formats without pages), `headings`, where a node that LlamaIndex wrote does not say
    otherwise, and `scores` (`dense`, `lexical`, `colbert`, `bm25`, `rerank`; None for what was not looked at), which
    no language model or embedding is shown.

    Where a query bundle brings its own strings to embed (HyDE does), these are searched for
    together. Its embedding is not used: M3 needs the text for the other two representations.

    Where there is no index, `retrieve` raises IndexMissingError, as `KnowledgeBase.search` does.

    Args:
        knowledge_base: Where to search: a `KnowledgeBase` or a `Collection`.
        similarity_top_k: Most nodes to give; None for the setting.
        filters: Conditions on the chunks' metadata: LlamaIndex's MetadataFilters, or a dict, see `m3rag.store.Filter`.
        callback_manager: As for every retriever of LlamaIndex.
        object_map: What stands behind an IndexNode that is found, by its `index_id`: a node, a retriever or a query
            engine, which is asked the same question and whose answer takes the node's place.
        objects: IndexNodes that have it as their `obj`, instead of `object_map`.
        verbose: As for every retriever of LlamaIndex.
        **options: As for a search, see `m3rag.retrieval.SearchOptions`: `mode` (`dense`, `lexical`, `colbert`,
            `dense+lexical`, `all`, `bm25` or `dense+bm25`), `weights` or `alpha`, `fusion`, `rrf_k`,
            `score_threshold`, `diversity`, `group_by_document`, `reranker`, `rerank_top`. None for the default.

    Raises:
        InputError: If an argument cannot be used.
        ConfigurationError: If mode, weights or fusion are unknown, or do not go together.
    """

    def __init__(
        self,
        knowledge_base: Collection,
        *,
        similarity_top_k: int | None = 10,
        filters: MetadataFilters | Filter | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        if not callable(getattr(knowledge_base, "search", None)):
            raise InputError(
                f"knowledge_base is {knowledge_base!r}, must be an m3rag.KnowledgeBase: KnowledgeBase('my-index')"
            )
        count("similarity_top_k", similarity_top_k)
        require_known("M3Retriever", options, ("similarity_top_k", "filters", *_OPTIONS))
        require_usable(cast("SearchOptions", options))
        super().__init__(callback_manager=callback_manager, object_map=object_map, objects=objects, verbose=verbose)
        self._knowledge_base = knowledge_base
        self._condition = condition_of(filters)
        self._options: dict[str, Any] = {"k": similarity_top_k, **options}

    @property
    def similarity_top_k(self) -> int | None:
        """Most nodes to give, None for the setting; it may be set anew, as of LlamaIndex's own retriever."""
        return cast("int | None", self._options["k"])

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int | None) -> None:
        self._options = {**self._options, "k": count("similarity_top_k", similarity_top_k)}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._search(query_bundle).run())

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(_nodes, await self._search(query_bundle).arun())

    def _search(self, query_bundle: QueryBundle) -> Search:
        text = "\n".join(query_bundle.embedding_strs)
        return Search(self._knowledge_base, text, self._condition, options={**self._options})  # type: ignore[typeddict-item]


def _nodes(hits: Sequence[Hit]) -> list[NodeWithScore]:
    return [to_scored_node(hit) for hit in hits]
