"""M3Output is a sequence: taking parts and joining them again loses nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.output import M3Output
from m3rag.testing.data import DENSE_ONLY, MODEL, random_output

seeds = st.integers(0, 10_000)
sizes = st.integers(0, 8)


def make(seed: int, n: int) -> M3Output:
    """Random texts, of a model with one leg where the seed is even."""
    return random_output(np.random.default_rng(seed), n, model=(DENSE_ONLY, MODEL)[seed % 2])


def same(a: M3Output, b: M3Output) -> bool:
    return (
        np.array_equal(a.dense, b.dense)
        and a.lexical.shape == b.lexical.shape
        and np.array_equal(a.lexical.toarray(), b.lexical.toarray())
        and np.array_equal(a.colbert, b.colbert)
        and np.array_equal(a.offsets, b.offsets)
    )


@given(seeds, st.integers(1, 8), st.data())
def test_splitting_and_joining_gives_the_same(seed: int, n: int, data: st.DataObject) -> None:
    output = make(seed, n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    parts = [output[a:b] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    assert same(M3Output.concatenate(parts), output)
    assert same(M3Output.concatenate(list(output)), output)


@given(seeds, st.integers(1, 8), st.data())
def test_picking_is_picking_each(seed: int, n: int, data: st.DataObject) -> None:
    output = make(seed, n)
    rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=10))
    picked = output[rows]
    assert same(picked, output[np.array(rows, np.int64)])
    assert len(picked) == len(rows)
    for i, row in enumerate(rows):
        assert same(picked[i], output[row])
        assert np.array_equal(picked.colbert_of(i), output.colbert_of(row % n))
        assert np.array_equal(picked.colbert_of(i - len(picked)), picked.colbert_of(i))
        assert np.array_equal(picked.dense[i], output.dense[row])
        assert np.array_equal(picked.lexical[[i]].toarray(), output.lexical[[row]].toarray())


@given(seeds, sizes, st.slices(8))
def test_slices_are_those_of_a_list(seed: int, n: int, part: slice) -> None:
    output = make(seed, n)
    rows = list(range(n))[part]
    assert same(output[part], output[rows])
    assert len(list(output[part])) == len(rows)


@given(seeds, sizes)
def test_lexical_dicts_hold_every_weight(seed: int, n: int) -> None:
    output = make(seed, n)
    dicts = output.lexical_dicts()
    assert len(dicts) == n
    full = output.lexical.toarray()
    for row, weights in enumerate(dicts):
        assert weights == {str(token): float(full[row, token]) for token in np.flatnonzero(full[row])}
    again = np.zeros_like(full)
    for row, weights in enumerate(dicts):
        for token, weight in weights.items():
            again[row, int(token)] = weight
    assert np.array_equal(again, full)


def test_types_are_kept() -> None:
    output = make(1, 5)
    for part in (output, output[2], output[1:4], output[[]], M3Output.concatenate([output, output])):
        assert part.dense.dtype == np.float32
        assert part.lexical.dtype == np.float32
        assert part.lexical.format == "csr"
        assert part.colbert.dtype == np.float16
        assert part.offsets.dtype == np.int64


def test_an_empty_output_joins_with_any() -> None:
    empty = M3Output.empty(dense_dim=MODEL.dense_dim, vocab_size=MODEL.vocab_size, colbert_dim=MODEL.colbert_dim)
    output = make(1, 3)
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.lexical_dicts() == []
    assert same(M3Output.concatenate([empty, output, empty]), output)
    assert same(output[:0], empty)


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match=r"M3Output\.empty"):
        M3Output.concatenate([])


def test_parts_that_disagree_are_refused() -> None:
    output = make(1, 3)
    for broken in (
        {"dense": output.dense[:2]},
        {"lexical": output.lexical[[0]]},
        {"colbert": output.colbert[:-1]},
        {"offsets": output.offsets[:-1]},
    ):
        with pytest.raises(ValueError, match="disagree"):
            replace(output, **broken)


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        make(1, 3)[3]


def test_dense_vectors_alone_make_an_output() -> None:
    dense = np.eye(3, 4, dtype=np.float32)
    output = M3Output.from_dense(dense)
    assert np.array_equal(output.dense, dense)
    assert (output.lexical.shape, output.colbert.shape, output.offsets.tolist()) == ((3, 0), (0, 0), [0, 0, 0, 0])
    empty = M3Output.empty(dense_dim=4, vocab_size=0, colbert_dim=0)
    assert same(M3Output.concatenate([empty, output]), output)
    assert same(M3Output.from_dense(dense[:0]), empty)
