"""Both backends against the formula written out, each other, and their packages used by themselves."""

from __future__ import annotations

import math
import sys
from typing import get_args

import bm25s
import numpy as np
import numpy.typing as npt
import pytest
import rank_bm25
from hypothesis import given
from hypothesis import strategies as st

from m3rag.bm25 import Backend, BM25Index, Formula, Method
from m3rag.bm25.backends import scorer
from m3rag.bm25.postings import Postings, bag_of, best
from m3rag.errors import ConfigurationError

BACKENDS: tuple[Backend, ...] = get_args(Backend)
METHODS: tuple[Method, ...] = get_args(Method)

corpora = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), min_size=1, max_size=12)
queries = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)
formulas = st.builds(
    Formula, method=st.sampled_from(METHODS), k1=st.floats(0.01, 5), b=st.sampled_from([0.0, 0.3, 0.75, 1.0])
)


def written_out(formula: Formula, texts: list[list[str]], query: list[str]) -> npt.NDArray[np.float64]:
    """BM25 as in the papers, one text and one token at a time."""
    n, mean = len(texts), sum(map(len, texts)) / len(texts)
    has = {token: sum(token in text for text in texts) for text in texts for token in text}
    if formula.method == "lucene":
        idf = {token: math.log(1 + (n - df + 0.5) / (df + 0.5)) for token, df in has.items()}
    else:
        idf = {token: math.log((n - df + 0.5) / (df + 0.5)) for token, df in has.items()}
        floor = 0.25 * sum(idf.values()) / len(idf) if idf else 0.0
        idf = {token: value if value >= 0 else floor for token, value in idf.items()}
    scores = np.zeros(n)
    for i, text in enumerate(texts):
        for token in query:
            if f := text.count(token):
                part = f / (f + formula.k1 * (1 - formula.b + formula.b * len(text) / mean))
                scores[i] += idf[token] * part * (formula.k1 + 1 if formula.method == "okapi" else 1)
    return scores


def of_backend(backend: Backend, formula: Formula, texts: list[list[str]], query: list[str]) -> npt.NDArray[np.float64]:
    vocabulary = {token: i for i, token in enumerate("xabcdefgh")}  # x is a token that no text has any more
    postings = Postings.of([bag_of(text, vocabulary) for text in texts], vocabulary_size=len(vocabulary))
    return scorer(backend, postings, formula).scores([vocabulary[token] for token in query])


@pytest.mark.parametrize("backend", BACKENDS)
@given(formula=formulas, texts=corpora, query=queries)
def test_scores_are_those_of_the_formula(
    backend: Backend, formula: Formula, texts: list[list[str]], query: list[str]
) -> None:
    found = of_backend(backend, formula, texts, query)
    np.testing.assert_allclose(found, written_out(formula, texts, query), rtol=1e-5, atol=1e-6)


@given(texts=corpora, query=queries)
def test_bm25s_by_itself_gives_the_same(texts: list[list[str]], query: list[str]) -> None:
    if not any(texts):
        return
    reference = bm25s.BM25()
    reference.index(texts, show_progress=False)
    known = [token for token in query if any(token in text for text in texts)]
    expected = reference.get_scores(known) if known else np.zeros(len(texts))
    np.testing.assert_allclose(of_backend("bm25s", Formula(), texts, query), expected, rtol=1e-5, atol=1e-6)


@given(texts=corpora, query=queries)
def test_rank_bm25_by_itself_gives_the_same(texts: list[list[str]], query: list[str]) -> None:
    if not any(texts):
        return
    expected = rank_bm25.BM25Okapi(texts).get_scores(query)
    for backend in BACKENDS:
        found = of_backend(backend, Formula(method="okapi"), texts, query)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("texts", [[], [[]], [[], []]])
def test_nothing_to_score(backend: Backend, texts: list[list[str]]) -> None:
    assert of_backend(backend, Formula(), texts, ["a"]).tolist() == [0.0] * len(texts)


@given(texts=corpora, query=queries)
def test_sharing(texts: list[list[str]], query: list[str]) -> None:
    vocabulary = {token: i for i, token in enumerate("abcdefgh")}
    postings = Postings.of([bag_of(text, vocabulary) for text in texts], vocabulary_size=8)
    expected = [i for i, text in enumerate(texts) if set(text) & set(query)]
    assert postings.sharing([vocabulary[token] for token in query]).tolist() == expected
    assert postings.lengths.tolist() == [len(text) for text in texts]


@given(st.lists(st.integers(-2, 2), max_size=20), st.integers(1, 25), st.data())
def test_the_best_rows(values: list[int], k: int, data: st.DataObject) -> None:
    chosen = [i for i in range(len(values)) if data.draw(st.booleans())]
    found = best(np.array(values, np.float64), np.array(chosen, np.int64), k)
    assert found.tolist() == sorted(chosen, key=lambda i: (-values[i], i))[:k]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bm42"}, "method 'bm42' is unknown: choose one of lucene, okapi"),
        ({"k1": 0}, "k1 must be above 0, got 0"),
        ({"k1": math.nan}, "k1 must be above 0, got nan"),
        ({"k1": "1"}, "k1 must be above 0, got '1'"),
        ({"b": "1"}, "b must be 0 to 1, got '1'"),
        ({"b": 1.5}, "b must be 0 to 1, got 1.5"),
        ({"backend": "lucene"}, "backend 'lucene' is unknown: choose one of bm25s, rank-bm25"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BM25Index(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_package_the_error_names_the_extra(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend.replace("-", "_"), None)
    with pytest.raises(ImportError, match=rf'needs the package {backend}: pip install "m3rag\[bm25\]"'):
        BM25Index(tokenize=str.split, backend=backend)
