from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3rag.encoder.lexical import MAX_TEXTS, MAX_VOCAB, LexicalRows, TokenWeights, max_per_token


def entries_of(owners: list[int], ids: list[int], weights: list[float]) -> TokenWeights:
    return max_per_token(np.array(owners, np.int64), np.array(ids, np.int64), np.array(weights, np.float32))


positions = st.tuples(
    st.sampled_from([0, 1, 2, MAX_TEXTS - 1]),
    st.sampled_from([0, 1, 7, MAX_VOCAB - 1]),
    st.sampled_from([0.0, -0.0, 1e-45, 0.25, 0.5, 1.0, 3e38, float("inf")]),
)


@given(st.lists(positions, max_size=40))
def test_equals_a_loop_over_tokens(entries: list[tuple[int, int, float]]) -> None:
    best: dict[tuple[int, int], float] = {}
    for owner, token, weight in entries:
        if np.float32(weight) > best.get((owner, token), 0.0):
            best[owner, token] = float(np.float32(weight))
    owners, ids, weights = ([entry[i] for entry in entries] for i in range(3))
    found = entries_of(owners, ids, weights)  # type: ignore[arg-type]
    in_order = list(zip(found.rows.tolist(), found.tokens.tolist(), strict=True))
    assert in_order == sorted(best)
    assert dict(zip(in_order, found.weights.tolist(), strict=True)) == best


def test_rows_are_collected_in_any_order() -> None:
    texts = [{3: 0.5}, {}, {1: 0.25, 9: 1.0}, {2: 0.125}]
    rows = LexicalRows(len(texts), 10)
    for part in ([2, 1], [3], [0]):
        owners = [i for i, text in enumerate(part) for _ in texts[text]]
        ids = [token for text in part for token in texts[text]]
        weights = [weight for text in part for weight in texts[text].values()]
        rows.add(np.array(part), entries_of(owners, ids, weights))
    matrix = rows.to_csr().toarray()
    assert [{t: float(w) for t, w in enumerate(row) if w} for row in matrix] == texts


def test_nothing_at_all() -> None:
    assert LexicalRows(0, 10).to_csr().shape == (0, 10)
    assert LexicalRows(3, 10).to_csr().nnz == 0
