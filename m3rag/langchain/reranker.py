"""M3Reranker and M3CrossEncoder: m3rag's rerankers where LangChain takes a compressor or a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from m3rag.errors import ConfigurationError, InputError
from m3rag.langchain.documents import documents_of
from m3rag.langchain.passages import hits_of
from m3rag.types import Hit

if TYPE_CHECKING:
    from m3rag.encoder.protocol import Encoder
    from m3rag.reranking import Reranker

SCORE = "relevance_score"
"""The key of a document's metadata that LangChain's rerankers put their score in."""


class M3Reranker(BaseDocumentCompressor):
    """Orders what any retriever found anew, by a cross-encoder or by ColBERT.

    Instantiate:
        ```python
        from m3rag.langchain import M3Reranker
        from m3rag.reranking import CrossEncoderReranker

        reranker = M3Reranker(encoder=knowledge_base.encoder, top_n=5)  # ColBERT, by a model already loaded
        reranker = M3Reranker(reranker=CrossEncoderReranker("BAAI/bge-reranker-v2-m3"), top_n=5)
        ```

    Use:
        ```python
        documents = reranker.compress_documents(documents, "Who proved it first?")
        retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=retriever)
        ```

    Gives copies, best first, with the reranker's score in `metadata["relevance_score"]`; what went in
    stays as it is. Documents that a reranker with a `top_n` of its own did not look at follow behind,
    without that key. Asynchronous calls run on threads.

    Attributes:
        encoder: An M3 encoder already loaded, to rerank by ColBERT.
        reranker: Any `m3rag.reranking.Reranker`, instead of an encoder.
        top_n: Most documents to give back, >= 1; all if None.

    Raises:
        ConfigurationError: If neither or both of encoder and reranker are given, or the encoder gives
            no token vectors.
        ValidationError: (a ValueError) If `top_n` is below 1.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    encoder: Any = Field(default=None, exclude=True, repr=False)
    reranker: Any = Field(default=None, exclude=True, repr=False)
    top_n: int | None = Field(default=None, ge=1)

    def model_post_init(self, _: Any) -> None:
        """Make the ColBERT reranker of an encoder."""
        self.reranker = _reranker_of(type(self).__name__, self.encoder, self.reranker)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents that fit the query best.

        Args:
            documents: Any number, from any retriever; only their text and headings are looked at.
            query: What they were found for.
            callbacks: Not called: reranking has no steps of its own to tell of.

        Returns:
            At most `top_n` copies, best first.

        Raises:
            InputError: If the query is blank or no text, or something is no Document.
        """
        if not isinstance(query, str):
            raise InputError(f"the query is a {type(query).__name__}, must be a string")
        documents = documents_of(documents)
        if not documents:
            return []
        hits = hits_of(documents)
        places = {hit.chunk.id: place for place, hit in enumerate(hits)}
        return [
            _scored(documents[places[hit.chunk.id]], hit) for hit in self.reranker.rerank(query, hits, k=self.top_n)
        ]


class M3CrossEncoder(BaseCrossEncoder):
    """m3rag's rerankers as a LangChain cross-encoder, for what takes one.

    Example:
        ```python
        model = M3CrossEncoder(reranker=CrossEncoderReranker("BAAI/bge-reranker-v2-m3"))
        compressor = langchain_classic.retrievers.document_compressors.CrossEncoderReranker(model=model, top_n=5)
        ```

    Args:
        encoder: An M3 encoder already loaded, to score by ColBERT.
        reranker: Any `m3rag.reranking.Reranker` without a `top_n` of its own, instead of an encoder.

    Raises:
        ConfigurationError: If neither or both are given, or the encoder gives no token vectors.
    """

    def __init__(self, *, encoder: Encoder | None = None, reranker: Reranker | None = None) -> None:
        self.reranker: Reranker = _reranker_of(type(self).__name__, encoder, reranker)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """How well each passage fits its question.

        Args:
            text_pairs: (question, passage), any number.

        Returns:
            A score for each, in the order given, on the reranker's own scale.

        Raises:
            InputError: If a question is blank, or something is no pair of texts.
            ConfigurationError: If the reranker did not look at every passage.
        """
        text_pairs = list(text_pairs)
        for place, pair in enumerate(text_pairs):
            texts = () if isinstance(pair, str) or not isinstance(pair, Iterable) else tuple(pair)
            if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
                raise InputError(
                    f"text_pairs[{place}] is {pair!r:.60}, must be a (question, passage) pair of strings: "
                    "give a list of pairs"
                )
        of_query: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(text_pairs):
            of_query.setdefault(query, []).append(place)
        scores: dict[int, float] = {}
        for query, places in of_query.items():
            hits = hits_of([Document(page_content=text_pairs[place][1]) for place in places])
            at = {hit.chunk.id: place for hit, place in zip(hits, places, strict=True)}
            for hit in self.reranker.rerank(query, hits):
                if hit.scores.rerank is None:
                    raise ConfigurationError("the reranker looks only at its top_n: give M3CrossEncoder one without")
                scores[at[hit.chunk.id]] = hit.scores.rerank
        return [scores[place] for place in range(len(text_pairs))]


def _reranker_of(owner: str, encoder: Any, reranker: Any) -> Any:
    if (encoder is None) == (reranker is None):
        raise ConfigurationError(
            f"{owner} takes either encoder=, to rerank by ColBERT, or reranker=, such as "
            "m3rag.reranking.CrossEncoderReranker('BAAI/bge-reranker-v2-m3')"
        )
    if reranker is None:
        from m3rag.reranking import ColbertReranker  # noqa: PLC0415 - torch takes seconds

        return ColbertReranker(encoder)
    if not callable(getattr(reranker, "rerank", None)):
        raise InputError(f"reranker is {reranker!r}, must be an m3rag.reranking.Reranker such as CrossEncoderReranker")
    return reranker


def _scored(document: Document, hit: Hit) -> Document:
    metadata = {key: deepcopy(value) for key, value in document.metadata.items() if key != SCORE}
    if hit.scores.rerank is not None:
        metadata[SCORE] = hit.scores.rerank
    return Document(id=document.id, page_content=document.page_content, metadata=metadata)
