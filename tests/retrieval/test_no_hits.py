"""No hits: the reason that is told is the one that holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from m3rag.reranking.order import reordered
from m3rag.retrieval import HybridRetriever
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit

from .legs import WordLeg


def filled(texts: list[str]) -> HybridRetriever:
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    chunks = [
        Chunk(id=str(i), document_id="d", text=text, start=0, end=len(text), metadata={"n": i, "lang": "de"})
        for i, text in enumerate(texts)
    ]
    if chunks:
        record = DocumentRecord(id="d", title="", version="1", chunks=len(texts))
        store.put_document(record, [(chunks, encoder.encode_documents(texts))])
    return HybridRetriever(encoder, store, bm25=WordLeg())


def test_where_there_are_hits_there_is_nothing_to_explain() -> None:
    retriever = filled(["Ducks swim."])
    for mode in ("dense", "lexical", "colbert", "all", "bm25"):
        assert retriever.search("ducks", mode=mode)
        assert retriever.why_empty("ducks", mode=mode) is None


def test_an_empty_index() -> None:
    why = filled([]).why_empty("ducks", filter={"lang": "fr"}, score_threshold=9)
    assert why is not None
    assert (why.reason, why.chunks, why.passing) == ("empty index", 0, 0)
    assert "m3rag ingest" in why.message


@pytest.mark.parametrize(
    ("filter", "excluded_by", "message"),
    [
        ({"lang": "fr"}, ("lang=fr",), "0 of 3 chunks pass the filter lang=fr"),
        ({"lang": ["fr"]}, ("lang=fr",), "0 of 3 chunks pass the filter lang=fr"),
        (
            {"lang": "de", "n": [7, "7"]},
            ('n=[7, "7"]',),
            '0 of 3 chunks pass the filter lang=de and n=[7, "7"]; no chunk passes n=[7, "7"]',
        ),
        (
            {"$and": [{"lang": "de"}, {"n": {"$gt": 5}}]},
            ('n={"$gt": 5}',),
            '0 of 3 chunks pass the filter lang=de and n={"$gt": 5}; no chunk passes n={"$gt": 5}',
        ),
        (
            {"$and": [{"n": 1}, {"n": 2}]},
            (),
            "0 of 3 chunks pass the filter n=1 and n=2; each condition alone lets some pass",
        ),
    ],
)
def test_a_filter_that_nothing_passes(filter: Any, excluded_by: tuple[str, ...], message: str) -> None:
    retriever = filled(["Ducks swim.", "Geese fly.", "Swans."])
    assert retriever.search("ducks", filter=filter) == []
    why = retriever.why_empty("ducks", filter=filter)
    assert why is not None
    assert (why.reason, why.excluded_by, why.chunks, why.passing) == ("filter", excluded_by, 3, 0)
    assert why.message == message


@pytest.mark.parametrize("mode", ["lexical", "bm25"])
def test_no_shared_token(mode: str) -> None:
    why = filled(["Ducks swim.", "Geese fly."]).why_empty("penguins", mode=mode, filter={"n": 1}, score_threshold=0.5)
    assert why is not None
    assert (why.reason, why.chunks, why.passing, why.best_score) == ("nothing shared", 2, 1, None)
    assert why.message == "none of 1 chunks shares a token with the question; try --mode all"


def test_no_token_vectors_to_compare() -> None:
    why = filled(["...", "!"]).why_empty("ducks", mode="colbert")
    assert why is not None
    assert why.reason == "nothing shared"
    assert "no token vectors" in why.message


@pytest.mark.parametrize("mode", ["dense", "all", "bm25"])
def test_all_below_the_threshold(mode: str) -> None:
    retriever = filled(["Ducks swim.", "Geese fly."])
    assert retriever.search("ducks", mode=mode, score_threshold=50) == []
    why = retriever.why_empty("ducks", mode=mode, score_threshold=50)
    best = retriever.search("ducks", mode=mode)[0].score
    assert why is not None
    assert (why.reason, why.passing, why.best_score) == ("score threshold", 2, best)
    assert f"{best:.4g}, below the threshold 50" in why.message


def test_below_the_threshold_of_a_reranker() -> None:
    class Unsure:
        """Gives the first hit a score, lower than what found it, and looks at no other."""

        def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
            return reordered(hits, np.array([0.001], np.float32), k=k)

    retriever = filled(["Ducks swim.", "Ducks swim and fly."])
    assert min(hit.score for hit in retriever.search("ducks", mode="dense")) > 0.05
    why = retriever.why_empty("ducks", mode="dense", reranker=Unsure(), score_threshold=0.05)
    assert why is not None
    assert why.best_score == pytest.approx(0.001)
    assert "scores 0.001, below the threshold 0.05" in why.message
