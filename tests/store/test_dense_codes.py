"""An estimate by bytes is as near to the true score as it says, so that the best chunks are always among those kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csc_array, csr_array

from m3rag.output import M3Output
from m3rag.store.dense_codes import DenseCodes, exact_dots
from m3rag.store.view import BY_CODES_FROM, Segment, View

DIM = 96


def vectors(kind: str, n: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Dense vectors as encoders give them, and as they should not."""
    found = rng.standard_normal((n, DIM))
    if kind == "near each other":  # as those of E5, whose scores all lie between .7 and .9
        found = 0.4 * found + rng.standard_normal(DIM)
    if kind == "one large dimension":
        found[:, 7] += 40
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    if kind == "of every length":
        found *= rng.lognormal(0, 3, (n, 1))
    if kind == "some zero":
        found[::3] = 0
    return found.astype(np.float32)


KINDS = ["even", "near each other", "one large dimension", "of every length", "some zero"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimate_is_as_near_as_it_says(kind: str) -> None:
    rng = np.random.default_rng(3)
    dense = vectors(kind, 9_000, rng)
    codes = DenseCodes.of(dense)
    worst = 0.0
    for query in vectors(kind, 20, rng):
        estimates, doubts = codes.estimates(query)
        off = np.abs(estimates - dense @ query) / doubts
        assert off.max() <= 1
        worst = max(worst, float(off.max()))
    assert worst > 0.1  # a doubt that is never near would keep far too many
    assert codes.hold_for(dense)


def test_vectors_that_round_alike_are_scanned_as_they_are() -> None:
    rng = np.random.default_rng(6)
    n = BY_CODES_FROM
    dense = (rng.random((n, 512)) < 0.3).astype(
        np.float32
    )  # features that are there or not, and one that outweighs all
    dense[:, 0] = rng.uniform(100, 400, n)
    assert not DenseCodes.of(dense).hold_for(dense)
    segment = Segment.of(np.arange(n), map(str, range(n)), dense, csc_array((n, 1), dtype=np.float32))
    assert segment.codes is None
    scores, _ = segment.estimates(dense[7], np.arange(n))
    np.testing.assert_allclose(scores, dense @ dense[7])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 50])
def test_the_best_by_bytes_are_the_best(kind: str, k: int) -> None:
    rng = np.random.default_rng(4)
    n = BY_CODES_FROM + 500
    dense = vectors(kind, n, rng)
    dense[:40] = dense[40:80]  # ties, which are kept to the last
    segment = Segment.of(np.arange(n), map(str, range(n)), dense, csc_array((n, 1), dtype=np.float32))
    assert segment.codes is not None
    view, everything = View.of([segment]), np.arange(n)
    for vector in vectors(kind, 10, rng):
        no_tokens = np.zeros((0, 0), np.float16)
        query = M3Output(vector[None], csr_array((1, 1), dtype=np.float32), no_tokens, np.zeros(2, np.int64))
        scores = dense.astype(np.float64) @ vector.astype(np.float64)
        kept = set(view.best_dense(query, everything, k).tolist())
        best = np.sort(scores)[-k]
        assert kept >= set(np.flatnonzero(scores >= best).tolist())
        some = np.arange(0, n, 2)  # of some of them, too
        assert set(view.best_dense(query, some, k).tolist()) >= {int(some[i]) for i in np.argsort(-scores[some])[:k]}


def test_a_query_of_zeros() -> None:
    rng = np.random.default_rng(5)
    estimates, _ = DenseCodes.of(vectors("even", 10, rng)).estimates(np.zeros(DIM, np.float32))
    assert not estimates.any()


@pytest.mark.parametrize("dim", [1, 3, 384, 1024])
def test_an_exact_product_is_the_same_wherever_its_vector_stands(dim: int) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((50, dim)).astype(np.float32)
    query = rng.standard_normal(dim).astype(np.float32)

    found = exact_dots(query, vectors)

    assert found == pytest.approx(vectors.astype(np.float64) @ query.astype(np.float64), rel=1e-12, abs=1e-12)
    alone = [exact_dots(query, vectors[i : i + 1])[0] for i in range(50)]
    assert found.tolist() == alone
    assert exact_dots(query, vectors[::-1].copy()).tolist() == found[::-1].tolist()
