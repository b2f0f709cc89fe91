"""The part of the store suite about filters: every operator on every kind of value, against the oracle."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.errors import InputError
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Filter, Store
from m3rag.testing.data import random_query
from m3rag.testing.store_fixtures import StoreFixtures
from m3rag.types import LEGS

FILTERS: list[Filter] = [
    {"lang": "de"},
    {"lang": ["de", "zh"]},
    {"lang": []},
    {"lang": "de", "draft": True},
    {"year": 2001},
    {"year": 2001.0},
    {"year": "2001"},
    {"year": [2001, 2003]},
    {"score": 1.5},
    {"flag": True},
    {"flag": 1},
    {"flag": [1, True]},
    {"draft": 0},
    {"tags": "common"},
    {"tags": ["tag 1", "tag 2"]},
    {"tags": 3},
    {"tags": True},
    {"document_id": "b.md"},
    {"document_id": ["a.md", "日本/c.md", "absent"]},
    {"document_id": []},
    {"document_id": ["\udcff", "a.md"]},
    {"lang": "\udcff"},
    {"source": "b.md"},
    {"source": {"$ne": "b.md"}},
    {"page": [2, 4]},
    {"page": {"$gte": 4, "$lt": 9}},
    {"page": {"$exists": False}},
    {"headings": "Part 2"},
    {"headings": {"$nin": ["Top"]}},
    {"no such key": "de"},
    {"none": "None"},
    {"nested": "fr"},
    {"nested.lang": "fr"},
    {'odd "key".[0]': "odd value"},
    {"metadata": "x"},
    {"text": "x"},
    {},
    {"year": {"$eq": 2001}},
    {"year": {"$ne": 2001}},
    {"tags": {"$ne": 3}},
    {"absent": {"$ne": 1}},
    {"lang": {"$in": ["de", "xx"]}},
    {"lang": {"$in": []}},
    {"lang": {"$nin": ["de", "zh"]}},
    {"lang": {"$nin": []}},
    {"year": {"$gt": 2001}},
    {"year": {"$gte": 2001, "$lt": 2003}},
    {"year": {"$gt": 2003, "$lt": 2001}},
    {"score": {"$lte": 1.5}},
    {"score": {"$gt": 1, "$ne": 2}},
    {"draft": {"$gte": 0}},
    {"flag": {"$gte": 0}},
    {"lang": {"$gte": 0}},
    {"tags": {"$gte": 1, "$lt": 3}},
    {"big": {"$gt": 2**53}},
    {"big": {"$gte": -(10**400), "$lt": 10**400}},
    {"big": 2**53 + 1},
    {"when": datetime(2024, 1, 2)},
    {"when": {"$ne": datetime(2024, 1, 2)}},
    {"when": {"$in": [date(2024, 1, 3), "2024-01-02T00:00:00Z", 7]}},
    {"when": {"$nin": [date(2024, 1, 3)]}},
    {"when": {"$gte": datetime(2024, 1, 3, 1, tzinfo=timezone(timedelta(hours=5)))}},
    {"when": {"$gt": "2024-01-02", "$lte": "2024-01-04T12:00:00+02:00"}},
    {"when": "2024-01-02T00:00:00Z"},
    {"when": {"$gte": 0}},
    {"year": {"$gte": date(1960, 1, 1)}},
    {"rare": {"$exists": True}},
    {"rare": {"$exists": False}},
    {"none": {"$exists": True}},
    {"empty": {"$exists": True}},
    {"document_id": {"$exists": True}},
    {"document_id": {"$exists": False}},
    {"document_id": {"$ne": "b.md"}},
    {'odd "key".[0]': {"$exists": True}},
    {"$and": []},
    {"$or": []},
    {"$not": {}},
    {"$and": [{"lang": "de"}, {"year": {"$gte": 2001}}]},
    {"$or": [{"lang": "de"}, {"year": {"$lt": 2001}}]},
    {"$not": {"$or": [{"lang": "de"}, {"$not": {"draft": True}}]}},
    {"$or": [{"$and": [{"lang": "de"}, {"draft": True}]}, {"rare": {"$gte": 10}}], "tags": ["tag 1", "tag 0"]},
]

BAD_VALUES: list[Any] = [None, {"gt": 3}, {}, [None], float("nan"), float("inf"), b"de", {"$in": "de"}, {"$eq": None}]
BAD_VALUES += [{"$gte": "de"}, {"$gte": True}, {"$gt": float("nan")}, {"$gt": 1, "$lt": "2024-01-01"}, {"$exists": 1}]
BAD_FILTERS: list[Any] = [
    [],
    {"$nor": []},
    {"$and": {}},
    {"$or": [None]},
    {"$not": []},
    {1: 2},
    {"document_id": {"$gt": 1}},
    {"document_id": 1},
    {"document_id": {"$nin": ["a.md", 1]}},
]

KEYS = [
    "lang",
    "year",
    "score",
    "draft",
    "flag",
    "tags",
    "none",
    "nested",
    "when",
    "rare",
    "big",
    "empty",
    "absent",
    "page",
]
SCALARS: list[Any] = ["de", "en", "common", "tag 1", "2001", "", 0, 1, 2001, 2.5, 1.0, -1, 2**53 + 1, True, False]
SCALARS += [datetime(2024, 1, 2), date(2024, 1, 3), "2024-01-02T00:00:00Z"]
NUMBERS = [-1, 0, 1, 1.5, 2, 3, 2000, 2001, 2002.5, 2**53, 2**80]
TIMES = [datetime(2024, 1, 1), date(2024, 1, 3), "2024-01-02T12:00:00+02:00", datetime(2024, 1, 4, tzinfo=UTC)]


def filters() -> st.SearchStrategy[Filter]:
    """Random filters over the metadata of `m3rag.testing.data.random_document`, nested a few levels deep."""
    scalars, lists = st.sampled_from(SCALARS), st.lists(st.sampled_from(SCALARS), max_size=3)
    bound = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
    operators = [
        scalars,
        lists,
        st.dictionaries(st.sampled_from(["$eq", "$ne"]), scalars, min_size=1),
        st.dictionaries(st.sampled_from(["$in", "$nin"]), lists, min_size=1),
        st.dictionaries(bound, st.sampled_from(NUMBERS), min_size=1, max_size=3),
        st.dictionaries(bound, st.sampled_from(TIMES), min_size=1, max_size=3),
        st.fixed_dictionaries({"$exists": st.booleans()}),
    ]
    ids = st.lists(st.sampled_from(["a.md", "b.md", "日本/c.md", "absent"]), max_size=2)
    leaf = st.dictionaries(st.sampled_from(KEYS), st.one_of(operators), max_size=2) | st.fixed_dictionaries(
        {"document_id": ids | ids.map(lambda chosen: {"$nin": chosen})}
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"$or": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"$not": inner}),
        ),
        max_leaves=5,
    )


class StoreFilterTests(StoreFixtures):
    """What passes a filter is what passes it in the oracle."""

    def test_filters_equal_the_oracle(self, filled: Store, oracle: MemoryStore, rng: np.random.Generator) -> None:
        query = random_query(rng)
        for one in FILTERS:
            assert filled.count(filter=one) == oracle.count(filter=one), one
            for leg in LEGS:
                found = filled.candidates(query, leg, k=100, filter=one)
                self._same(found, oracle.candidates(query, leg, k=100, filter=one), leg)

    def test_random_filters_equal_the_oracle(self, filled: Store, oracle: MemoryStore) -> None:
        @settings(max_examples=100, deadline=None, database=None, derandomize=True)
        @given(filters())
        def check(one: Filter) -> None:
            expected, _ = oracle.scan(filter=one, limit=100)
            found, following = filled.scan(filter=one, limit=100)
            assert following is None
            assert sorted(chunk.id for chunk in found) == [chunk.id for chunk in expected]
            assert filled.count(filter=one) == len(expected)

        check()

    def test_the_filters_above_tell_chunks_apart(self, oracle: MemoryStore) -> None:
        counts = [oracle.count(filter=one) for one in FILTERS]
        assert sum(0 < count < 62 for count in counts) >= 40
        assert oracle.count(filter={"flag": 1}) + oracle.count(filter={"flag": True}) == 62

    def test_a_filter_that_makes_no_sense_is_refused(self, filled: Store, rng: np.random.Generator) -> None:
        query = random_query(rng)
        for bad in [*({"lang": value} for value in BAD_VALUES), *BAD_FILTERS]:
            with pytest.raises(InputError, match="filter"):
                filled.count(filter=bad)
            with pytest.raises(InputError, match="filter"):
                filled.candidates(query, "dense", k=3, filter=bad)
