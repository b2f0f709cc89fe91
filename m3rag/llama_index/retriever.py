"""M3Retriever: a KnowledgeBase as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, ObjectType, QueryBundle, RelatedNodeInfo, TextNode

from m3rag.chunking.parents import without_reserved
from m3rag.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager

    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.scoring import Weights
    from m3rag.store.protocol import Filter
    from m3rag.types import Hit


class M3Retriever(BaseRetriever):
    """The chunks of a KnowledgeBase that fit a question, by all three representations of M3.

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
        engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
        ```

    Nodes are new objects: `id_` is the chunk's id, `text` its text, `start_char_idx` and
    `end_char_idx` its place in the document, which is the node's SOURCE. The metadata are the
    chunk's own and `document_id`, `page` (from 1; left out for formats without pages), `headings`,
    and `scores` (`dense`, `lexical`, `colbert`, `bm25`, `rerank`; None for what was not looked at), which no
    language model or embedding is shown.

    Where a query bundle brings its own strings to embed (HyDE does), these are searched for
    together. Its embedding is not used: M3 needs the text for the other two representations.

    Args:
        knowledge_base: Where to search.
        similarity_top_k: Most nodes to give; None for the knowledge base's setting.
        mode: `dense`, `lexical`, `colbert`, `dense+lexical`, `all`, `bm25` or `dense+bm25`; None for the setting.
        filters: Conditions on the chunks' metadata as a dict, see `m3rag.store.Filter`.
        weights: A preset's name, `"1/0.3/1"`, or Weights; None for the setting.
        fusion: `weighted`, `minmax`, `zscore` or `rrf`; None for `weighted` (`minmax` with BM25).
        callback_manager: As for every retriever of LlamaIndex.
        verbose: As for every retriever of LlamaIndex.

    Raises:
        InputError: If an argument cannot be used.
    """

    def __init__(
        self,
        knowledge_base: KnowledgeBase,
        *,
        similarity_top_k: int | None = 10,
        mode: str | None = None,
        filters: Filter | None = None,
        weights: Weights | str | None = None,
        fusion: str | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        if not callable(getattr(knowledge_base, "search", None)):
            raise InputError(
                f"knowledge_base is {knowledge_base!r}, must be an m3rag.KnowledgeBase: KnowledgeBase('my-index')"
            )
        if similarity_top_k is not None and (not isinstance(similarity_top_k, int) or similarity_top_k < 1):
            raise InputError(f"similarity_top_k must be a whole number from 1, got {similarity_top_k!r}")
        if filters is not None and not isinstance(filters, Mapping):
            raise InputError(
                f"filters is a {type(filters).__name__}, must be a dict such as {{'document_id': ['a.pdf', 'b.pdf']}}"
            )
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._knowledge_base = knowledge_base
        self._options: dict[str, Any] = {
            "k": similarity_top_k,
            "mode": mode,
            "filter": filters,
            "weights": weights,
            "fusion": fusion,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        text = "\n".join(query_bundle.embedding_strs)
        return [_node(hit) for hit in self._knowledge_base.search(text, **self._options)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The base class's twin blocks the event loop.
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> NodeWithScore:
    chunk = hit.chunk
    metadata = deepcopy(without_reserved(chunk.metadata))
    metadata |= {"document_id": chunk.document_id, "headings": list(chunk.headings), "scores": asdict(hit.scores)}
    if chunk.page is not None:
        metadata["page"] = chunk.page
    node = TextNode(
        id_=chunk.id,
        text=chunk.text,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        metadata=metadata,
        excluded_embed_metadata_keys=["scores"],
        excluded_llm_metadata_keys=["scores"],
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id, node_type=ObjectType.DOCUMENT)
        },
    )
    return NodeWithScore(node=node, score=hit.score)
