"""M3SparseEmbeddings: the lexical leg of M3 for LangChain's stores that take sparse vectors beside dense ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables.config import run_in_executor

from m3rag.langchain.model import ModelHolder, listed
from m3rag.legs import require_legs

if TYPE_CHECKING:
    from m3rag.encoder.inputs import Role
    from m3rag.langchain.embeddings import M3Embeddings
    from m3rag.langchain.milvus import MilvusSparseEmbeddings
    from m3rag.langchain.qdrant import QdrantSparseEmbeddings

TEXTS_AT_ONCE = 256
"""Texts encoded together: all three representations of them are held until the lexical one is read."""


class M3SparseEmbeddings(ModelHolder):
    """Lexical weights of an M3 model: a weight above 0 for each token that counts, by its id in the vocabulary.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        ```

    Instantiate:
        ```python
        from m3rag.langchain import M3SparseEmbeddings

        dense, sparse = M3SparseEmbeddings.with_dense(model="BAAI/bge-m3")  # one model, one pass for both
        sparse = M3SparseEmbeddings(model="mini")
        ```

    Use:
        ```python
        QdrantVectorStore.from_documents(
            documents, dense, sparse_embedding=sparse.as_qdrant(), retrieval_mode=RetrievalMode.HYBRID
        )
        Milvus.from_documents(documents, [dense, sparse.as_milvus()], vector_field=["dense", "sparse"])
        weights = sparse.embed_query("What do ducks do?")  # {token id: weight}
        ```

    Arguments, pickling and threads are as for `M3Embeddings`.

    Raises:
        ValidationError: (a ValueError) If an argument is unknown or cannot be used.
        ModelError: If the model cannot be had.
        ConfigurationError: If it has no lexical leg, or an option is out of range for it.
    """

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take over the settings of the one given."""
        super().model_post_init(context)
        require_legs(self.loaded().info, ["lexical"], what="M3SparseEmbeddings", remedy="choose another one")

    @classmethod
    def with_dense(cls, **options: Any) -> tuple[M3Embeddings, M3SparseEmbeddings]:
        """M3Embeddings and M3SparseEmbeddings of one model, which encode a text once for both.

        A framework asks for the dense vectors of some texts, then for the sparse ones of the same: what the first
        pass gave is kept for a minute, in 256 MB at most.

        Args:
            **options: As for M3Embeddings.
        """
        from m3rag.encoder.cache import MemoryCache  # noqa: PLC0415 - torch takes seconds
        from m3rag.encoder.cached import CachedEncoder  # noqa: PLC0415
        from m3rag.langchain.embeddings import M3Embeddings  # noqa: PLC0415

        alone = M3Embeddings(**options)
        shared = CachedEncoder(alone.loaded(), MemoryCache())
        rest: dict[str, Any] = {
            "encode_kwargs": alone.encode_kwargs,
            "query_encode_kwargs": alone.query_encode_kwargs,
            "show_progress": alone.show_progress,
        }
        return M3Embeddings(encoder=shared, **rest), cls(encoder=shared, **rest)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """The lexical weights of passages.

        Args:
            texts: Any number of strings, which may come from a generator; an empty one has no weights.

        Returns:
            For each text, in order, the weight (> 0) of each of its tokens by token id.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
        """
        return self._embed(texts, "document", self.encode_kwargs.get("batch_size"))

    def embed_query(self, text: str) -> dict[int, float]:
        """The lexical weights of a question; as `embed_documents`."""
        return self._embed([text], "query", None)[0]

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """As `embed_documents`, on a thread."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> dict[int, float]:
        """As `embed_query`, on a thread."""
        return await run_in_executor(None, self.embed_query, text)

    def as_qdrant(self) -> QdrantSparseEmbeddings:
        """These as what `langchain_qdrant.QdrantVectorStore` takes as `sparse_embedding`.

        Raises:
            ImportError: If langchain-qdrant is not installed.
        """
        try:
            from m3rag.langchain.qdrant import QdrantSparseEmbeddings  # noqa: PLC0415 - loads when used
        except ModuleNotFoundError as error:
            raise _missing("as_qdrant", "langchain-qdrant", error) from error
        return QdrantSparseEmbeddings(self)

    def as_milvus(self) -> MilvusSparseEmbeddings:
        """These as what `langchain_milvus.Milvus` takes among its `embedding_function`.

        Milvus Lite refuses to leave small weights out, as langchain-milvus would have it: give the store
        `index_params` and `search_params` with `{"metric_type": "IP", "index_type": "SPARSE_INVERTED_INDEX",
        "params": {}}` for the sparse field. A text without weights, an empty one, Milvus does not take.

        Raises:
            ImportError: If langchain-milvus is not installed.
        """
        try:
            from m3rag.langchain.milvus import MilvusSparseEmbeddings  # noqa: PLC0415 - loads when used
        except ModuleNotFoundError as error:
            raise _missing("as_milvus", "langchain-milvus", error) from error
        return MilvusSparseEmbeddings(self)

    def _embed(self, texts: list[str], role: Role, batch_size: int | None) -> list[dict[int, float]]:
        encoder = self.loaded()
        texts = listed(texts)
        encode = encoder.encode_documents if role == "document" else encoder.encode_queries
        size = batch_size or TEXTS_AT_ONCE
        found: list[dict[int, float]] = []
        for first in range(0, len(texts), size):
            weights = encode(texts[first : first + size]).lexical
            rows = zip(weights.indptr[:-1].tolist(), weights.indptr[1:].tolist(), strict=True)
            indices, data = weights.indices.tolist(), weights.data.tolist()
            found += [dict(zip(indices[a:b], data[a:b], strict=True)) for a, b in rows]
        return found


def _missing(method: str, package: str, error: ModuleNotFoundError) -> Exception:
    module = package.replace("-", "_")
    if (error.name or "").partition(".")[0] != module:
        return error
    return ImportError(f"M3SparseEmbeddings.{method}() needs {package}: pip install {package}", name=error.name)
