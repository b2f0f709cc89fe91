"""Maximal marginal relevance against its definition, written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.retrieval.diversity import mmr
from m3rag.retrieval.still_stored import representations_left
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import Chunk


def naive(scores: list[float], vectors: np.ndarray, k: int, diversity: float) -> list[int]:  # type: ignore[type-arg]
    low, high = min(scores), max(scores)
    relevance = [(score - low) / (high - low) if high > low else 0.0 for score in scores]
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        best, best_gain = -1, -np.inf
        for i in range(len(scores)):
            if i not in chosen:
                like = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
                gain = (1 - diversity) * relevance[i] - diversity * like if chosen else relevance[i]
                if gain > best_gain + 1e-12:
                    best, best_gain = i, gain
        chosen.append(best)
    return chosen


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 14), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
def test_it_is_the_definition(seed: int, n: int, k: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.sort(rng.integers(0, 5, n))[::-1].astype(np.float64)
    chosen = mmr(scores, vectors, k=k, diversity=diversity)
    assert chosen == naive(scores.tolist(), vectors, k, diversity)
    assert len(set(chosen)) == len(chosen) == min(n, k)
    if diversity == 0:
        assert chosen == list(range(min(n, k)))


def test_a_twin_gives_way() -> None:
    vectors = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    scores = np.array([0.9, 0.89, 0.5])
    assert mmr(scores, vectors, k=2, diversity=0.0) == [0, 1]
    assert mmr(scores, vectors, k=2, diversity=0.6) == [0, 2]
    assert mmr(np.zeros(0), np.zeros((0, 2)), k=3, diversity=0.5) == []


@pytest.mark.parametrize("shift", [-1e6, 0.0, 1e6])
def test_the_scale_of_the_scores_does_not_matter(shift: float) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((30, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.sort(rng.random(30))[::-1]
    assert mmr(scores * 128 + shift, vectors, k=10, diversity=0.5) == mmr(scores, vectors, k=10, diversity=0.5)


def test_what_is_removed_and_written_again_while_it_is_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    texts = ["ducks swim", "ducks eat"]
    chunks = [Chunk(id=text, document_id="a", text=text, start=0, end=len(text)) for text in texts]
    store.upsert(chunks, encoder.encode_documents(texts))
    real, misses = store.representations, [1, 1]

    def late(ids: Sequence[str]) -> M3Output:
        if misses:
            misses.pop()
            return real([*ids, "gone for a moment"])
        return real(ids)

    monkeypatch.setattr(store, "representations", late)
    assert representations_left(store, texts)[0] == texts
    misses[:] = [1] * 100
    with pytest.raises(InputError, match="gone for a moment"):
        representations_left(store, texts)
