"""What the inverted index finds is what the filter means, for single segments and for merged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.store.filter_index import FilterIndex, FilterIndexBuilder, merged
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


@settings(max_examples=300, deadline=None, database=None)
@given(CHUNKS, CHUNKS, filters(), st.integers(0, 2**16 - 1))
def test_the_index_finds_what_passes(
    chunks: list[Chunk], others: list[Chunk], filter: Mapping[str, Any], kept: int
) -> None:
    condition = parse_filter(filter)
    parts = [index_of(chunks), index_of(others)]

    assert parts[0].mask(condition).tolist() == [matches(one, filter) for one in chunks]

    every = [*chunks, *others]
    places = [i for i in range(len(every)) if kept >> i & 1]
    one, two = np.array(places, np.int64), len(chunks)
    joined = merged([(parts[0], one[one < two]), (parts[1], one[one >= two] - two)])
    assert joined.mask(condition).tolist() == [matches(every[i], filter) for i in places]


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

    assert np.flatnonzero(index.mask(parse_filter({"n": bounds}))).tolist() == expected


def test_a_list_has_one_element_within_all_bounds() -> None:
    index = index_of([Chunk("c", "a.md", "", 0, 0, metadata={"n": [1, 9]})])

    assert not index.mask(parse_filter({"n": {"$gt": 2, "$lt": 8}})).any()
    assert index.mask(parse_filter({"n": {"$gt": 2, "$lt": 10}})).all()


def test_many_values() -> None:
    index = index_of([Chunk(f"c{i}", f"d{i}", "", 0, 0, metadata={"n": i}) for i in range(3_000)])

    some = [f"d{i}" for i in range(0, 6_000, 2)]
    assert np.flatnonzero(index.mask(parse_filter({"document_id": {"$nin": some}}))).tolist() == list(
        range(1, 3_000, 2)
    )
    assert index.mask(parse_filter({"n": list(range(10_000))})).all()


def test_no_metadata_value_is_taken_for_a_document() -> None:
    metadata = {"document_id": "b.md", "$document_id": "b.md", "document": ["b.md", None]}
    index = index_of([Chunk("c", "a.md", "", 0, 0, metadata=metadata)])

    assert not index.mask(parse_filter({"document_id": "b.md"})).any()
    assert index.mask(parse_filter({"document_id": "a.md"})).all()
