from __future__ import annotations

import numpy as np
import pytest
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from m3rag.errors import InputError
from m3rag.langchain.nearest import diverse, nearest
from m3rag.store.memory import MemoryStore
from m3rag.testing.data import DENSE_ONLY, MODEL, random_document
from m3rag.types import ModelInfo


def filled(model: ModelInfo) -> tuple[MemoryStore, np.random.Generator]:
    rng = np.random.default_rng(5)
    store = MemoryStore(model)
    example = random_document(rng, "a", chunks=40, model=model)
    store.put_document(example.record, example.parts())
    return store, rng


@pytest.mark.parametrize("model", [MODEL, DENSE_ONLY], ids=["all-legs", "dense"])
def test_the_nearest_are_those_of_brute_force_whatever_the_length(model: ModelInfo) -> None:
    store, rng = filled(model)
    ids = [chunk.id for chunk in store.chunks_of("a")]
    dense = store.representations(ids).dense
    vector = rng.standard_normal(24)
    cosines = dense @ (vector / np.linalg.norm(vector))
    best = np.argsort(-cosines)[:7]
    found = nearest(store, (vector * 9).tolist(), k=7, filter=None)
    assert [chunk.id for chunk, _ in found] == [ids[i] for i in best]
    assert np.allclose([score for _, score in found], cosines[best], atol=1e-5)
    german = nearest(store, vector.tolist(), k=50, filter={"lang": "de"})
    assert {chunk.metadata["lang"] for chunk, _ in german} == {"de"}


@pytest.mark.parametrize("vector", [[1.0] * 23, [[1.0] * 24], ["x"] * 24, [float("nan")] * 24, []])
def test_what_is_no_vector_of_the_model_is_refused(vector: list[float]) -> None:
    store, _ = filled(DENSE_ONLY)
    with pytest.raises(InputError, match="the embedding must be 24 finite numbers"):
        nearest(store, vector, k=1, filter=None)


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20, 30])
def test_the_choice_is_langchains(k: int, lambda_mult: float) -> None:
    store, rng = filled(MODEL)
    for _ in range(5):
        vector = rng.standard_normal(24)
        found = nearest(store, vector.tolist(), k=20, filter=None)
        vectors = store.representations([chunk.id for chunk, _ in found]).dense
        expected = maximal_marginal_relevance(vector, vectors.tolist(), lambda_mult, k)
        chosen = diverse(store, found, k=k, lambda_mult=lambda_mult)
        assert [chunk.id for chunk in chosen] == [found[i][0].id for i in expected]


def test_what_was_deleted_meanwhile_is_left_out() -> None:
    store, rng = filled(MODEL)
    found = nearest(store, rng.standard_normal(24).tolist(), k=5, filter=None)
    store.delete_chunks([found[0][0].id, found[3][0].id])
    left = {found[i][0].id for i in (1, 2, 4)}
    assert {chunk.id for chunk in diverse(store, found, k=5, lambda_mult=0.5)} == left
    store.delete_documents(["a"])
    assert diverse(store, found, k=5, lambda_mult=0.5) == []


@pytest.mark.parametrize(("k", "lambda_mult"), [(0, 0.5), (1, -0.1), (1, 1.5), (1, "0.5")])
def test_numbers_out_of_range_are_named(k: int, lambda_mult: float) -> None:
    store, rng = filled(DENSE_ONLY)
    found = nearest(store, rng.standard_normal(24).tolist(), k=5, filter=None)
    with pytest.raises(InputError, match=r"k must be at least 1|lambda_mult goes from 0"):
        diverse(store, found, k=k, lambda_mult=lambda_mult)
