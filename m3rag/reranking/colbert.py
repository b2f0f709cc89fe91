"""ColbertReranker: exact MaxSim of the question's tokens over each hit's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3rag._copied import CopiedAsItself
from m3rag.encoder.protocol import Encoder
from m3rag.errors import IndexMismatchError
from m3rag.legs import require_legs
from m3rag.reranking.order import reordered, require_rerankable, require_top_n
from m3rag.scoring import colbert_scores
from m3rag.store.protocol import Store
from m3rag.types import Hit


class ColbertReranker(CopiedAsItself):
    """Rerank by ColBERT alone: the mean over the question's tokens of the best cosine in the passage.

    With a store this costs one encoded question, since the passages' token vectors are there; hits
    that the store does not hold (from elsewhere, or deleted since they were found) are encoded from
    their text, and so are all without a store. It reranks what any search found, such as BM25; mode
    `all` of `HybridRetriever` already looks at ColBERT, weighed against the other legs.

    As with every reranker, what is most like the query comes first: where relevance is something
    else (counter-arguments, as in ArguAna), measure before switching it on.

    Example:
        >>> from m3rag.store.memory import MemoryStore
        >>> from m3rag.testing import HashEncoder
        >>> encoder = HashEncoder()
        >>> ColbertReranker(encoder, MemoryStore(encoder.info)).rerank("Do ducks swim?", [])
        []

    Args:
        encoder: Encodes the questions, and passages that the store does not hold.
        store: Where the hits' token vectors are; filled by the same model.
        top_n: How many hits `rerank` looks at; all that it is given if None.

    Raises:
        ConfigurationError: If the model has no token vectors, or `top_n` is not positive.
        IndexMismatchError: If the store was filled by another model.
    """

    def __init__(self, encoder: Encoder, store: Store | None = None, *, top_n: int | None = None) -> None:
        require_legs(encoder.info, ["colbert"], what="ColbertReranker", remedy="use a CrossEncoderReranker")
        require_top_n(top_n)
        if store is not None and store.manifest.model.fingerprint != encoder.info.fingerprint:
            made_by = store.manifest.model
            raise IndexMismatchError(
                f"the index was made by the model {made_by.name!r} ({made_by.fingerprint}), the encoder is "
                f"{encoder.info.name!r} ({encoder.info.fingerprint}): rerank with the index's model, or rebuild "
                "the index with `m3rag rebuild`"
            )
        self.encoder = encoder
        self.store = store
        self.top_n = top_n

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        """Order hits by ColBERT's score, in [-1, 1].

        See `m3rag.reranking.Reranker.rerank`.
        """
        require_rerankable(query, k)
        looked_at = hits[: self.top_n]
        if not looked_at:
            return []
        output = self.encoder.encode_queries([query])
        ids = [hit.chunk.id for hit in looked_at]
        known = {} if self.store is None else self.store.score(output, "colbert", ids)
        scores = np.array([known.get(id_, 0.0) for id_ in ids], np.float32)
        # By position: hits from several indexes may share an id and have other texts.
        others = [i for i, id_ in enumerate(ids) if id_ not in known]
        if others:
            passages = self.encoder.encode_documents([looked_at[i].chunk.encoded_text for i in others])
            scores[others] = colbert_scores(output, passages)[0]
        return reordered(hits, scores, k=k)
