from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3rag.encoder.lexical import LexicalRows, max_per_token

UNUSED = np.array([0, 1, 2, 3])


def naive(ids: list[int], weights: list[float], dropped: int) -> dict[int, float]:
    best: dict[int, float] = {}
    for position, (token, weight) in enumerate(zip(ids, weights, strict=True)):
        if position >= dropped and token not in UNUSED and weight > max(best.get(token, 0.0), 0.0):
            best[token] = weight
    return best


@given(st.data())
def test_equals_a_loop_over_tokens(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=6))
    dropped = data.draw(st.integers(0, 3))
    longest = max(map(len, texts))
    weight = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    weights = np.array([data.draw(st.lists(weight, min_size=longest, max_size=longest)) for _ in texts], np.float32)
    order = np.array(data.draw(st.permutations(range(len(texts)))))
    rows = LexicalRows(len(texts), 10)
    half = len(texts) // 2
    for part in (order[:half], order[half:]):
        if len(part):
            ids = [np.array(texts[i]) for i in part]
            rows.add(part, max_per_token(ids, weights[part], dropped, UNUSED))
    matrix = rows.to_csr().toarray()
    for i, ids in enumerate(texts):
        found = {t: float(w) for t, w in enumerate(matrix[i]) if w}
        assert found == naive(ids, weights[i, : len(ids)].tolist(), dropped)


def test_nothing_at_all() -> None:
    assert LexicalRows(0, 10).to_csr().shape == (0, 10)
    assert LexicalRows(3, 10).to_csr().nnz == 0
