"""What the inverted index finds is what the filter means, for single segments and for merged ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.store.filter_index import Asked, FilterIndex, FilterIndexBuilder, merged
from m3rag.store.filters import matches, parse_filter
from m3rag.store.payload import chunk_to_payload
from m3rag.testing.store_filters import filters
from m3rag.types import Chunk

VALUES = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    st.sampled_from(["2024-01-02T00:00:00Z", "2024-01-03", "de", 2001, 2**53 + 1, [1, 2002.5], ["de", True], []]),
)
KEYS = st.sampled_from(["lang", "year", "tags", "when", "big", 'a."b"', "page", "document_id", "$document_id"])
CHUNKS = st.lists(
    st.builds(
        lambda document, metadata: Chunk("c", document, "text", 0, 4, metadata=metadata),
        st.sampled_from(["a.md", "b.md", "日本/c.md", ""]),
        st.dictionaries(KEYS, VALUES, max_size=6),
    ),
    max_size=8,
)


def index_of(chunks: Sequence[Chunk]) -> FilterIndex:
    builder = FilterIndexBuilder()
    for chunk in chunks:
        builder.add(chunk_to_payload(chunk))
    return builder.index()


def found(index: FilterIndex, filter: Mapping[str, Any]) -> list[int]:
    return np.flatnonzero(index.mask(Asked(parse_filter(filter)))).tolist()


@settings(max_examples=300, deadline=None, database=None)
@given(CHUNKS, CHUNKS, filters(), st.integers(0, 2**16 - 1))
def test_the_index_finds_what_passes(
    chunks: list[Chunk], others: list[Chunk], filter: Mapping[str, Any], kept: int
) -> None:
    asked = Asked(parse_filter(filter))
    parts = [index_of(chunks), index_of(others)]

    assert parts[0].mask(asked).tolist() == [matches(one, filter) for one in chunks]

    every = [*chunks, *others]
    places = [i for i in range(len(every)) if kept >> i & 1]
    one, two = np.array(places, np.int64), len(chunks)
    joined = merged([(parts[0], one[one < two]), (parts[1], one[one >= two] - two)])
    assert joined.mask(asked).tolist() == [matches(every[i], filter) for i in places]
    assert joined.nbytes == index_of([every[i] for i in places]).nbytes


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"$gt": 1}, [2, 3]),
        ({"$gte": 1}, [1, 2, 3]),
        ({"$lt": 2}, [0, 1]),
        ({"$lte": 2}, [0, 1, 2]),
        ({"$gt": 0, "$gte": 1, "$lt": 3, "$lte": 1}, [1]),
        ({"$gt": 2, "$lt": 1}, []),
        ({"$gt": 1, "$lt": 1}, []),
        ({"$gte": 1, "$lte": 1}, [1]),
        ({"$gt": 9}, []),
    ],
)
def test_ranges(bounds: dict[str, float], expected: list[int]) -> None:
    index = index_of([Chunk("c", "a.md", "", 0, 0, metadata={"n": n}) for n in range(4)])

    assert found(index, {"n": bounds}) == expected


def test_a_list_has_one_element_within_all_bounds() -> None:
    index = index_of([Chunk("c", "a.md", "", 0, 0, metadata={"n": [1, 9]})])

    assert found(index, {"n": {"$gt": 2, "$lt": 8}}) == []
    assert found(index, {"n": {"$gt": 2, "$lt": 10}}) == [0]


def test_many_values() -> None:
    index = index_of([Chunk(f"c{i}", f"d{i}", "", 0, 0, metadata={"n": i}) for i in range(3_000)])

    some = [f"d{i}" for i in range(0, 6_000, 2)]
    assert found(index, {"document_id": {"$nin": some}}) == list(range(1, 3_000, 2))
    assert len(found(index, {"n": list(range(10_000))})) == 3_000


def test_a_value_asked_for_again_and_again_costs_nothing() -> None:
    index = index_of([Chunk(f"c{i}", "a.md", "", 0, 0, metadata={"lang": "de"}) for i in range(5_000)])

    tracemalloc.start()
    try:
        assert len(found(index, {"lang": ["de"] * 10_000})) == 5_000
        assert len(found(index, {"$or": [{"lang": {"$eq": "de"}}] * 1_000})) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_true_is_not_one() -> None:
    index = index_of([Chunk(str(n), "a.md", "", 0, 0, metadata={"flag": n}) for n in (1, True, 1.0)])

    assert found(index, {"flag": 1}) == [0, 2]
    assert found(index, {"flag": True}) == [1]
    assert found(index, {"$and": [{"flag": [1, True]}, {"$not": {"flag": True}}]}) == [0, 2]
    assert found(index, {"$or": [{"flag": 1}, {"flag": True}]}) == [0, 1, 2]


def test_no_metadata_value_is_taken_for_a_document() -> None:
    metadata = {"document_id": "b.md", "$document_id": "b.md", "document": ["b.md", None]}
    index = index_of([Chunk("c", "a.md", "", 0, 0, metadata=metadata)])

    assert found(index, {"document_id": "b.md"}) == []
    assert found(index, {"document_id": "a.md"}) == [0]
