"""Low-rank deltas lead from a model's tensors to those of its training, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from m3rag.encoder.deltas import factorise, with_deltas
from m3rag.errors import ModelError


def _moved(rank: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    base = {"a.weight": rng.normal(size=(12, 20)), "b.weight": rng.normal(size=(20, 12)), "b.bias": rng.normal(size=20)}
    trained = dict(base)
    trained["a.weight"] = base["a.weight"] + 0.01 * rng.normal(size=(12, rank)) @ rng.normal(size=(rank, 20))
    return base, trained


def test_what_was_moved_comes_back() -> None:
    base, trained = _moved(3)
    deltas = factorise(base, trained, rank=3)
    assert {name: value.shape for name, value in deltas.items()} == {"a.weight.down": (3, 20), "a.weight.up": (12, 3)}
    assert {value.dtype for value in deltas.values()} == {np.dtype(np.float16)}
    found = with_deltas(base, deltas)
    assert found["b.weight"] is base["b.weight"]
    np.testing.assert_allclose(found["a.weight"], trained["a.weight"], atol=1e-4)
    assert not np.allclose(base["a.weight"], trained["a.weight"], atol=1e-3)


def test_the_dtype_of_the_model_is_kept() -> None:
    base, trained = _moved(2)
    half = {name: value.astype(np.float16) for name, value in base.items()}
    found = with_deltas(half, factorise(base, trained, rank=2))
    assert found["a.weight"].dtype == np.float16
    np.testing.assert_allclose(found["a.weight"], trained["a.weight"], atol=2e-3)


def test_what_comes_back_does_not_depend_on_the_order_of_sums() -> None:
    """Else one model would have as many fingerprints as there are kinds of machines."""
    rng = np.random.default_rng(0)
    state = {"a.weight": rng.normal(size=(384, 384)).astype(np.float16)}
    up, down = (rng.normal(size=(384, 16), scale=0.1).astype(np.float16) for _ in range(2))
    found = with_deltas(state, {"a.weight.up": up, "a.weight.down": np.ascontiguousarray(down.T)})
    turned = {"a.weight.up": up[:, ::-1], "a.weight.down": np.ascontiguousarray(down.T)[::-1]}
    assert np.array_equal(with_deltas(state, turned)["a.weight"], found["a.weight"])


def test_what_no_delta_of_the_rank_explains_is_refused() -> None:
    base, trained = _moved(5)
    with pytest.raises(ModelError, match=r"a\.weight was not moved by a delta of rank 2.*--lora-rank 2"):
        factorise(base, trained, rank=2)
    with pytest.raises(ModelError, match=r"b\.bias was not moved"):
        factorise(base, base | {"b.bias": base["b.bias"] + 1}, rank=2)
    with pytest.raises(ModelError, match=r"a\.weight is \(20, 12\) and was \(12, 20\)"):
        factorise(base, {"a.weight": base["b.weight"]}, rank=2)


def test_deltas_of_another_model_are_refused() -> None:
    base, trained = _moved(2)
    deltas = factorise(base, trained, rank=2)
    for state in ({}, {"a.weight": base["b.weight"]}):
        with pytest.raises(ModelError, match=r"a\.weight is missing or of another shape"):
            with_deltas(state, deltas)
