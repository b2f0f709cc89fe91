from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.output import M3Output
from m3rag.reranking import ColbertReranker, Reranker
from m3rag.scoring import colbert_scores
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit, LegScores

TEXTS = ["Geese fly south", "Ducks swim on ponds", "", "鸭子 swim", "Do ducks swim at all?"]
QUERY = "Do ducks swim?"


class Counting(HashEncoder):
    """Remembers which passages it was asked to encode."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.passages: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        return super().encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        self.passages += texts
        return super().encode_documents(texts)


def chunks() -> list[Chunk]:
    return [Chunk(f"c{i}", "d", text, 0, len(text), headings=("Birds",)) for i, text in enumerate(TEXTS)]


def hits() -> list[Hit]:
    return [Hit(chunk, 1.0 - i / 10, LegScores(dense=0.3)) for i, chunk in enumerate(chunks())]


def store_of(encoder: HashEncoder, stored: Sequence[Chunk]) -> MemoryStore:
    store = MemoryStore(encoder.info)
    output = HashEncoder().encode_documents([chunk.encoded_text for chunk in stored])
    store.put_document(DocumentRecord("d", "d", "1", len(stored)), [(stored, output)])
    return store


def expected() -> dict[str, float]:
    encoder = HashEncoder()
    passages = encoder.encode_documents([chunk.encoded_text for chunk in chunks()])
    scores = colbert_scores(encoder.encode_queries([QUERY]), passages)[0]
    return {f"c{i}": float(score) for i, score in enumerate(scores)}


@pytest.mark.parametrize("stored", [None, 0, 2, 5])
def test_the_score_is_exact_whether_stored_or_encoded(stored: int | None) -> None:
    encoder = Counting()
    store = None if stored is None else store_of(encoder, chunks()[:stored])
    reranker: Reranker = ColbertReranker(encoder, store)
    found = reranker.rerank(QUERY, hits())
    assert found[0].chunk.id == "c4"
    assert {hit.chunk.id: hit.score for hit in found} == pytest.approx(expected(), abs=1e-5)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert all(hit.scores == LegScores(dense=0.3, rerank=hit.score) for hit in found)
    assert encoder.passages == [chunk.encoded_text for chunk in chunks()[stored or 0 :]]


def test_top_n_and_k() -> None:
    found = ColbertReranker(HashEncoder(), top_n=2).rerank(QUERY, hits(), k=4)
    assert [hit.chunk.id for hit in found] == ["c1", "c0", "c2", "c3"]
    assert found[2:] == hits()[2:4]


def test_ties_are_broken_by_id() -> None:
    same = [Hit(Chunk(key, "d", "Ducks swim", 0, 10), 1.0) for key in ("b", "a", "é", "B")]
    assert [hit.chunk.id for hit in ColbertReranker(HashEncoder()).rerank(QUERY, same)] == ["B", "a", "b", "é"]


def test_hits_of_one_id_from_two_indexes_have_their_own_scores() -> None:
    here, there = Hit(Chunk("a", "d", "Geese fly", 0, 9), 1.0), Hit(Chunk("a", "d", "Do ducks swim", 0, 13), 0.5)
    found = ColbertReranker(HashEncoder()).rerank(QUERY, [here, there])
    assert [hit.chunk.text for hit in found] == ["Do ducks swim", "Geese fly"]
    assert found[0].score == pytest.approx(1.0, abs=1e-3)
    assert found[1].score < 0.9


def test_no_hits_cost_nothing() -> None:
    assert ColbertReranker(HashEncoder()).rerank(QUERY, []) == []


def test_an_empty_query_is_refused() -> None:
    with pytest.raises(InputError, match="query is empty"):
        ColbertReranker(HashEncoder()).rerank("  ", hits())


def test_a_store_of_another_model_is_refused() -> None:
    with pytest.raises(IndexMismatchError, match="m3rag rebuild"):
        ColbertReranker(HashEncoder(), MemoryStore(HashEncoder(dense_dim=8).info))


def test_a_model_without_token_vectors_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ColbertReranker needs the leg colbert"):
        ColbertReranker(HashEncoder(colbert_dim=0))
    with pytest.raises(ConfigurationError, match="top_n"):
        ColbertReranker(HashEncoder(), top_n=0)
    with pytest.raises(ConfigurationError, match="top_n must be a whole number, got '2'"):
        ColbertReranker(HashEncoder(), top_n="2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"k must be a whole number, got 2\.5"):
        ColbertReranker(HashEncoder()).rerank(QUERY, hits(), k=2.5)  # type: ignore[arg-type]


def test_scores_are_finite_float32() -> None:
    scores = np.array([hit.score for hit in ColbertReranker(HashEncoder()).rerank(QUERY, hits())])
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, scores.astype(np.float32))
