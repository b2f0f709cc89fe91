"""M3VectorStore: a collection as a LlamaIndex vector store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import ConfigDict, Field, PrivateAttr

from m3rag.errors import InputError
from m3rag.llama_index.filters import both, condition_of
from m3rag.llama_index.nodes import nodes_given, to_chunk, to_node
from m3rag.llama_index.opened import opened, shared, unpicklable
from m3rag.llama_index.query_modes import options_of
from m3rag.llama_index.search import Search, chunks_where, several, unit
from m3rag.llama_index.store_embedding import StoreEmbedding
from m3rag.output import M3Output
from m3rag.types import LEGS

if TYPE_CHECKING:
    from typing import Self

    from m3rag.collection import Collection
    from m3rag.store.protocol import Filter
    from m3rag.types import Hit


class M3VectorStore(BasePydanticVectorStore):
    """The chunks of a collection, with all three representations of M3, as LlamaIndex's nodes.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        ```

    Instantiate:
        ```python
        from m3rag.llama_index import M3VectorStore

        store = M3VectorStore(index="my-index", model="BAAI/bge-m3")
        store = M3VectorStore(knowledge_base)  # shared with files, the command line, LangChain
        store = M3VectorStore(index="my-index", dense_dim=1536)  # embeddings of another model
        ```

    Use:
        ```python
        storage = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=store.embed_model)
        retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=5)
        pipeline = IngestionPipeline(transformations=[parser, store.embed_model], vector_store=store)
        ```

    The store encodes nodes and questions itself: of a node its `headings` (a list of strings in the metadata) and
    its text, no other metadata. An embedding that a node brings is not used, and `embed_model` makes none. A node
    of the same id overwrites. Everything is durable when a call returns. A collection without an index is empty.

    Query modes: `default` by the dense vector, `mmr` by it and by diversity, `sparse` by the lexical weights,
    `hybrid` by all three (with `alpha` by `dense+lexical`), `text_search` by BM25 where the extra `bm25` is
    installed, else by the lexical weights. Others are refused. `query_embedding`, where given, is the dense vector
    of the question; alone it serves `default` and `mmr`. For filters see `m3rag.llama_index.filters`: all operators
    work; TEXT_MATCH, TEXT_MATCH_INSENSITIVE and IS_EMPTY read every chunk that passes the rest.

    With `dense_dim` the store holds the embeddings that nodes bring, and questions must bring theirs, as in any
    other of LlamaIndex's stores; `hybrid` is then `dense+bm25`, and there is no `sparse`.

    A pickle, and `to_dict`, hold where the index lies, and no secret. What is restored in the same process shares
    the collection that is open there, if it still is.

    Args:
        collection: A Collection or KnowledgeBase to share; give this or `index`.
        index: Where the index lies, as for `m3rag.Collection`; opened when needed.
        model: For a new index, as for `m3rag.Collection`.
        dense_dim: Of the embeddings that nodes bring; only with `index`.

    Attributes:
        index: As above.
        model: As above.
        dense_dim: As above.

    Raises:
        InputError: If not exactly one of `collection` and `index` is given, or they contradict the rest.
        ConfigurationError: If the place is malformed.
    """

    # Without the input in errors: who gives a key in the wrong place should not find it in a log.
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), hide_input_in_errors=True)

    stores_text: bool = True
    is_embedding_query: bool = False
    index: str = Field(description="Where the index lies.")
    model: str | None = Field(default=None, description="The model of a new index.")
    dense_dim: int | None = Field(default=None, description="Of the embeddings that nodes bring.")

    _collection: Any = PrivateAttr()

    def __init__(self, collection: Collection | None = None, *, index: str | Path | None = None, **fields: Any) -> None:
        if (collection is None) == (index is None):
            raise InputError("M3VectorStore takes a collection, or index='my-index': give one of them")
        if collection is not None:
            fields = {**fields, **shared(collection, fields)}
        else:
            fields["index"] = str(index)
        fields |= {"stores_text": True, "is_embedding_query": fields.get("dense_dim") is not None}
        super().__init__(**fields)
        self._collection = collection or opened(self.index, self.model, self.dense_dim)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "M3VectorStore"

    @property
    def client(self) -> Collection:
        """The collection."""
        collection: Collection = self._collection
        return collection

    @property
    def embed_model(self) -> StoreEmbedding:
        """What to give LlamaIndex as its embedding model: one that leaves the embedding to the store."""
        if self.dense_dim is not None:
            raise InputError("with dense_dim the store encodes nothing: give LlamaIndex the model of your embeddings")
        return StoreEmbedding()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Encode nodes and write them, replacing those of the same id; the last of several in one call.

        Returns:
            The ids of the nodes, in their order.

        Raises:
            InputError: If something is no node, a node's metadata are not JSON or use a reserved key, or with
                `dense_dim` it brings no embedding of that dimension.
        """
        nodes = nodes_given(nodes)
        latest = {node.node_id: node for node in nodes}
        chunks = [to_chunk(node) for node in latest.values()]
        if self.dense_dim is None:
            self.client.upsert(chunks)
        elif chunks:
            without = [key for key, node in latest.items() if node.embedding is None]
            if without:
                raise InputError(f"node {without[0]!r} brings no embedding, and with dense_dim nothing else makes one")
            dense = unit([node.embedding or [] for node in latest.values()], self.client.encoder.info)
            self.client.upsert(chunks, M3Output.from_dense(dense))
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`, on a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove a document with all its nodes; one that is not there is no error."""
        if self.client.exists:
            self.client.store.delete_documents([ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`, on a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Filter | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove nodes by id, by filters, or those of the ids that pass the filters.

        Raises:
            InputError: If neither is given, or the filters say nothing.
        """
        condition = condition_of(filters)
        if node_ids is None and not condition.filter and condition.exact:
            raise InputError("delete_nodes takes node_ids or filters that say something; clear() removes everything")
        if not self.client.exists:
            return
        if node_ids is None and condition.exact:
            self.client.delete(filter=condition.filter)
            return
        found = [chunk.id for chunk in chunks_where(self.client.store, condition, node_ids)]
        self.client.delete(found)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Filter | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """As `delete_nodes`, on a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | Filter | None = None
    ) -> list[BaseNode]:
        """Nodes by id in that order, by filters, or those of the ids that pass the filters; without either all."""
        condition = condition_of(filters)
        if not self.client.exists:
            return []
        return [to_node(chunk) for chunk in chunks_where(self.client.store, condition, node_ids)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | Filter | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`, on a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def clear(self) -> None:
        """Remove all nodes and documents; the index stays, empty."""
        if self.client.exists:
            store = self.client.store
            store.delete_documents([document.id for document in store.documents()])

    async def aclear(self) -> None:
        """As `clear`, on a thread."""
        await asyncio.to_thread(self.clear)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes for a question.

        Args:
            query: `doc_ids`, `node_ids` and `filters` must all hold; of no documents (`doc_ids=[]`) nothing is found,
                but `node_ids=[]`, which LlamaIndex's own retriever gives, is no condition. `similarity_top_k` is how
                many; in mode
                `sparse` it is `sparse_top_k`, in `hybrid` `hybrid_top_k`, where these are given, and
                `sparse_top_k` there how many candidates each leg brings at least (400 anyway). `alpha` counts in
                `hybrid`: 1 for the dense leg alone, 0 for keywords. `mmr_threshold` in `mmr`: 1 by score alone, 0
                for most variety; by default .5.
            **kwargs: Options of `Collection.search` in place of the mode's, such as `weights`, `rerank_top` or
                m3rag's own `mode`; and `mmr_threshold`.

        Returns:
            New nodes, best first, ties by id; `similarities` are higher for better ones: in `default` and `mmr`
            cosines, else on the scale of the mode.

        Raises:
            InputError: If the query mode or an option is unknown, the question is empty, or the embedding is of
                another dimension.
            ConfigurationError: If the mode needs what the model does not give.
        """
        search = self._search(query, kwargs)
        return _result(search.run() if search else [])

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`, without blocking the event loop."""
        search = await asyncio.to_thread(self._search, query, kwargs)
        return await asyncio.to_thread(_result, await search.arun() if search else [])

    def _search(self, query: VectorStoreQuery, kwargs: dict[str, Any]) -> Search | None:
        """What to search for; None where there is no index yet."""
        condition = condition_of(query.filters)
        if query.doc_ids is not None:
            documents = several("doc_ids", query.doc_ids)
            condition = both(condition, condition_of({"document_id": {"$in": documents}}))
        manifest = self.client.manifest
        options = options_of(query, kwargs, legs=manifest.model.legs if manifest else LEGS)
        if manifest is None:
            return None
        return Search(
            collection=self.client,
            text=query.query_str,
            condition=condition,
            embedding=query.query_embedding,
            ids=query.node_ids or None,
            candidates=query.sparse_top_k if query.mode == "hybrid" else None,
            options=options,
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Where the index lies.

        Raises:
            InputError: If it lies in memory.
        """
        unpicklable(self.index)
        found: dict[str, Any] = super().to_dict(**kwargs)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Where the index lies; the base class would pickle the collection to see whether it can."""
        unpicklable(self.index)
        return {"__dict__": {"index": self.index, "model": self.model, "dense_dim": self.dense_dim}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the collection."""
        return self.model_copy()


def _result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[to_node(hit.chunk) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.chunk.id for hit in hits],
    )
