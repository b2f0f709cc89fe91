"""M3VectorStore: a collection as a LangChain vector store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from m3rag.collection import Collection
from m3rag.errors import InputError
from m3rag.langchain.documents import to_document
from m3rag.langchain.foreign import EncoderEmbeddings
from m3rag.langchain.model import whole
from m3rag.langchain.nearest import diverse, nearest
from m3rag.langchain.opening import opened
from m3rag.langchain.searching import Search, for_mmr, scored
from m3rag.langchain.writing import WritableStore
from m3rag.retrieval import Mode
from m3rag.retrieval.options import require_known
from m3rag.settings import Settings
from m3rag.store.place import Place
from m3rag.store.protocol import Filter
from m3rag.types import Hit

if TYPE_CHECKING:
    from typing import Self


class M3VectorStore(WritableStore):
    """Documents with all three representations of M3, found by dense vectors, words and token vectors together.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        ```

    Instantiate:
        ```python
        from m3rag.langchain import M3Embeddings, M3VectorStore

        store = M3VectorStore(M3Embeddings(model="BAAI/bge-m3"), index="my-index")  # one pass gives all three
        store = M3VectorStore(OpenAIEmbeddings())  # any Embeddings: dense vectors alone; in memory
        store = M3VectorStore(collection=KnowledgeBase("my-index"))  # what `m3rag ingest` filled
        ```

    Use:
        ```python
        store.add_documents(documents, ids=["a", "b"])
        found = store.similarity_search("Do ducks swim?", k=3, filter={"lang": "en"}, mode="dense+lexical")
        retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 5})
        ```

    A search gives Documents equal to those that came in, and takes every option of `m3rag.retrieval.SearchOptions`
    by keyword: `mode`, `weights`, `fusion`, `reranker` and so on; another one is refused. What came in by another
    door has `document_id`, `source`, `page`, `start`, `end` and `headings` in its metadata. Asynchronous calls
    do not block the event loop (but see docs/scale.md on what the engine of a folder does after large
    writes), and those that search share the model's passes. Where there is no index yet, nothing is found;
    the first Documents make it. Stores on one folder, LlamaIndex's among them, share the index that is open
    in this process, each with its own embedding, mode and settings; the last to close releases it.

    Args:
        embedding: What makes the vectors. The encoder of M3Embeddings is shared. Other Embeddings give the dense
            leg alone, and an index that they made is opened with no others.
        index: Where the index lies, as for `m3rag.Collection`. By default in memory.
        collection: A Collection or KnowledgeBase to share, instead of both. It stays the caller's to close.
        mode: Which legs a search looks at, unless told otherwise: `dense`, `lexical`, `colbert`, `dense+lexical`,
            `all`, `bm25` or `dense+bm25`. By default the collection's; `dense` for a model of that leg alone.
        settings: As for `m3rag.Collection`.

    Raises:
        InputError: If there is no embedding and no collection, or both, or the embedding is none.
        IndexMismatchError: If another model made the index.
        ConfigurationError: If the mode is unknown, or needs a leg that the model does not give.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        *,
        index: str | Path | Place | None = None,
        collection: Collection | None = None,
        mode: Mode | str | None = None,
        settings: Settings | None = None,
    ) -> None:
        chosen = None if mode is None else Mode.parse(mode)
        self._embedding = embedding
        self._owns = collection is None
        if collection is not None:
            given = {"embedding": embedding, "index": index, "settings": settings}
            extra = [name for name, value in given.items() if value is not None]
            if extra:
                raise InputError(f"the collection has its own {' and '.join(extra)}: leave out {', '.join(extra)}")
            self.collection = collection
        else:
            self.collection = opened(embedding, index, chosen, settings)
        self._search = Search(self.collection, chosen)

    @property
    def embeddings(self) -> Embeddings:
        """What makes the dense vectors; of a shared collection its encoder, which loads on first use."""
        return self._embedding or EncoderEmbeddings(self.collection)

    def similarity_search(self, query: str, k: int = 4, filter: Filter | None = None, **options: Any) -> list[Document]:
        """The best Documents for a question, best first.

        Args:
            query: The question.
            k: Most Documents; >= 1.
            filter: Conditions on the metadata, see `m3rag.store.Filter`.
            **options: See `m3rag.retrieval.SearchOptions`; `score_threshold` is on the scale of the scores that
                `similarity_search_with_score` gives.

        Raises:
            InputError: If the question is empty, a number is out of its range, or an option is unknown.
            ConfigurationError: If the mode needs a leg that the model does not give, or options do not go together.
        """
        return _documents(self._search.hits(query, k, filter, options))

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """As `similarity_search`; concurrent callers share the model's passes."""
        return await run_in_executor(None, _documents, await self._search.ahits(query, k, filter, options))

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each with its fused score: a similarity, more is better.

        The Documents have it as `relevance_score` in their metadata too, and the score of each leg as `scores`.
        """
        return _with_scores(self._search.hits(query, k, filter, options))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`; concurrent callers share the model's passes."""
        return await run_in_executor(None, _with_scores, await self._search.ahits(query, k, filter, options))

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        return self._search.relevant(self._search.hits(query, k, filter, options), options)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        hits = await self._search.ahits(query, k, filter, options)
        return await run_in_executor(None, self._search.relevant, hits, options)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """The Documents whose dense vectors are nearest to one, best first.

        Args:
            embedding: A vector of the store's model, such as `store.embeddings.embed_query(question)`.
            k: Most Documents; >= 1.
            filter: Conditions on the metadata.
            **options: There are no others.

        Raises:
            InputError: If the vector is not of the model's dimension, `k` is below 1, or an option is unknown.
        """
        require_known("similarity_search_by_vector", options, ("k", "filter"))
        if not self.collection.exists:
            return []
        return [to_document(chunk) for chunk, _ in nearest(self.collection.store, embedding, k=k, filter=filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """Documents that fit a question and are not all alike, in the order of choice.

        The best `fetch_k` by the mode are found as in `similarity_search`; dense vectors choose among them.

        Args:
            query: The question.
            k: Most Documents; >= 1.
            fetch_k: How many to choose from; at least `k` are.
            lambda_mult: From 0, as diverse as can be, to 1, by the dense score alone.
            filter: Conditions on the metadata.
            **options: As in `similarity_search`, but `diversity`, which says the same on another scale.

        Raises:
            InputError, ConfigurationError: As `similarity_search`.
        """
        hits = self._search.hits(query, _pool(k, fetch_k), filter, for_mmr(options))
        return self._search.diverse(query, hits, k, lambda_mult)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`; concurrent callers share the model's passes."""
        hits = await self._search.ahits(query, _pool(k, fetch_k), filter, for_mmr(options))
        return await run_in_executor(None, self._search.diverse, query, hits, k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **options: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a dense vector; as `similarity_search_by_vector`."""
        require_known("max_marginal_relevance_search_by_vector", options, ("k", "fetch_k", "lambda_mult", "filter"))
        if not self.collection.exists:
            return []
        store = self.collection.store
        found = nearest(store, embedding, k=_pool(k, fetch_k), filter=filter)
        return [to_document(chunk) for chunk in diverse(store, found, k=k, lambda_mult=lambda_mult)]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store with some texts: the arguments of the class, then those of `add_texts`."""
        store = cls(embedding, **kwargs)
        try:
            store.add_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Release the index, unless the collection was given or another store has it. Closing twice does nothing."""
        if self._owns:
            self.collection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"M3VectorStore(index={str(self.collection.place)!r})"


def _documents(hits: Sequence[Hit]) -> list[Document]:
    return [to_document(hit.chunk) for hit in hits]


def _with_scores(hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    return [scored(hit, hit.score) for hit in hits]


def _pool(k: int, fetch_k: int) -> int:
    return max(whole("k", k), whole("fetch_k", fetch_k))
