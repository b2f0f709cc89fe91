"""What filters mean, one by one, and that what is kept in the payload says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.errors import IndexMismatchError, InputError
from m3rag.store import Manifest
from m3rag.store.filters import (
    DOCUMENT_ID,
    EVERYTHING,
    MAX_DEPTH,
    And,
    AnyOf,
    Condition,
    Exists,
    Not,
    Or,
    Range,
    matches,
    parse_filter,
)
from m3rag.store.payload import Payload, chunk_to_payload
from m3rag.testing import HashEncoder
from m3rag.testing.store_filters import filters
from m3rag.types import Chunk

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


def chunk(**metadata: Any) -> Chunk:
    return Chunk("c", "doc.md", "text", 0, 4, metadata=metadata)


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

MEANING: list[tuple[Any, Any, bool]] = [
    # equality: by value and JSON type
    (1, 1, True),
    (1, 1.0, True),
    (1.0, 1, True),
    (1, True, False),
    (True, 1, False),
    (0, False, False),
    ("1", 1, False),
    ("", "", True),
    (None, "None", False),
    (2**53 + 1, 2**53, False),
    (2**53 + 1, 2**53 + 1, True),
    (10**400, 10**400, True),
    ("e\u0301", "\u00e9", False),
    # any of, negation
    ("de", ["de", "en"], True),
    ("de", [], False),
    ("de", {"$in": ("en", "de")}, True),
    ("de", {"$in": {"en"}}, False),
    ("de", {"$ne": "en"}, True),
    ("de", {"$ne": "de"}, False),
    ("de", {"$nin": []}, True),
    ("de", {"$nin": ["de"]}, False),
    # lists: any element
    (["a", 1], 1, True),
    (["a", True], 1, False),
    ([], "a", False),
    ([["a"]], "a", False),
    (["a", "b"], {"$ne": "a"}, False),
    (["a", "b"], {"$nin": ["c"]}, True),
    ([1, 9], {"$gt": 3, "$lt": 6}, False),
    ([1, 5, "x"], {"$gt": 3, "$lt": 6}, True),
    ({"a": 1}, 1, False),
    # numbers of numpy, which they compare with each element of a list
    (["a", 1], np.float64(1), True),
    ([[1]], np.float64(1), False),
    ([[1, 2]], {"$ne": np.float64(1)}, True),
    # ranges of numbers
    (5, {"$gt": 5}, False),
    (5, {"$gte": 5}, True),
    (5, {"$lt": 5.5}, True),
    (5, {"$lte": 4}, False),
    (5, {"$gte": 5, "$lte": 5, "$ne": 5}, False),
    (True, {"$gte": 0}, False),
    ("5", {"$gte": 0}, False),
    (None, {"$gte": 0}, False),
    (10**400, {"$gt": 1e308}, True),
    (10**400, {"$gt": 10**500}, False),
    (-(10**400), {"$lt": -1e308}, True),
    (2**53 + 1, {"$gt": 2**53}, False),  # as float64
    # times
    ("2024-05-01", date(2024, 5, 1), True),
    ("2024-05-01", datetime(2024, 5, 1), True),
    ("2024-05-01T14:00:00+02:00", NOON, True),
    ("2024-05-01T14:00+0200", NOON, True),
    ("2024-05-01 12:00:00.000Z", NOON, True),
    ("2024-05-01T12:00:00.000001Z", NOON, False),
    ("2024-05-01T12:00:00.000001Z", {"$gt": NOON}, True),
    ("2024-05-01T12:00:00,5Z", NOON + timedelta(seconds=0.5), True),
    ("2024-05-01T12:00:00Z", {"$ne": NOON}, False),
    ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00+00:00", False),  # text equals text
    ("2024-05-01T12:00:00Z", {"$gte": "2024-05-01T14:00:00+02:00"}, True),
    ("2024-05-01T12:00:00Z", {"$in": ["x", NOON]}, True),
    ("2024-05-01T12:00:00Z", {"$nin": [NOON]}, False),
    ("2024-04-30T23:30:00-01:00", {"$gte": date(2024, 5, 1)}, True),
    (["soon", "2024-05-01"], {"$lt": datetime(2025, 1, 1)}, True),
    ("20240501", {"$gte": date(1970, 1, 1)}, False),
    ("2024-02-30", {"$gte": date(1970, 1, 1)}, False),
    ("2024-05-01T24:00", {"$gte": date(1970, 1, 1)}, False),
    ("2024-05-01T12:00:00+99:00", {"$gte": date(1970, 1, 1)}, False),
    ("٢٠٢٤-05-01", {"$gte": date(1970, 1, 1)}, False),
    ("0001-01-01T00:00+14:00", {"$lt": date(1, 1, 1)}, True),
    (1714564800, NOON, False),
    (1714564800, {"$gte": NOON}, False),
    # existence
    (None, {"$exists": True}, True),
    ([], {"$exists": True}, True),
    (1, {"$exists": False}, False),
]


@pytest.mark.parametrize(("held", "wanted", "expected"), MEANING, ids=repr)
def test_what_an_entry_means(held: Any, wanted: Any, expected: bool) -> None:
    one = chunk(key=held, other="x")
    assert matches(one, {"key": wanted}) is expected
    assert matches(one, {"$not": {"key": wanted}}) is not expected
    assert by_payload(parse_filter({"key": wanted}), chunk_to_payload(one)) is expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("x", False),
        ({"$ne": "x"}, True),
        ({"$nin": ["x"]}, True),
        ({"$gt": 0}, False),
        ({"$lt": date(2030, 1, 1)}, False),
        ({"$exists": False}, True),
        ({"$exists": True}, False),
    ],
)
def test_a_missing_key(wanted: Any, expected: bool) -> None:
    assert matches(chunk(), {"key": wanted}) is expected


def test_the_key_document_id_is_the_chunks_document() -> None:
    one = chunk(document_id="other")
    for filter, expected in [
        ({"document_id": "doc.md"}, True),
        ({"document_id": "other"}, False),
        ({"document_id": ["x", "doc.md", "\ud800"]}, True),
        ({"document_id": {"$ne": "doc.md"}}, False),
        ({"document_id": {"$exists": True}}, True),
        ({"document_id": {"$exists": False}}, False),
    ]:
        assert matches(one, filter) is expected, filter
    assert parse_filter({"document_id": ["\ud800", "a"]}) == AnyOf(DOCUMENT_ID, ("a",))


def test_where_a_chunk_stands_is_found_unless_its_metadata_say_otherwise() -> None:
    one = Chunk("c", "doc.pdf", "text", 0, 4, page=3, headings=("Birds", "Ducks"))
    own = replace(one, metadata={"source": "web", "page": "iii", "headings": None})
    pageless = replace(one, page=None, headings=())
    for filter, expected in [
        ({"source": "doc.pdf"}, (True, False, True)),
        ({"source": "web"}, (False, True, False)),
        ({"source": {"$ne": "doc.pdf"}}, (False, True, False)),
        ({"page": 3}, (True, False, False)),
        ({"page": {"$gte": 2, "$lt": 4}}, (True, False, False)),
        ({"page": "iii"}, (False, True, False)),
        ({"page": {"$exists": True}}, (True, True, False)),
        ({"headings": "Ducks"}, (True, False, False)),
    ]:
        for chunk, passes in zip((one, own, pageless), expected, strict=True):
            assert matches(chunk, filter) is passes, (filter, chunk)
            assert by_payload(parse_filter(filter), chunk_to_payload(chunk)) is passes


@pytest.mark.parametrize("filter", [{"page": 3}, {"$or": [{"lang": "de"}, {"$not": {"source": {"$exists": True}}}]}])
def test_a_format_that_kept_no_place_is_refused_by_name(filter: Any) -> None:
    model = HashEncoder().info
    with pytest.raises(IndexMismatchError, match=r"filter '(page|source)': the index is of format 2 .* m3rag rebuild"):
        parse_filter(filter, of=Manifest(model, "0.1.0", format=2))
    assert parse_filter(filter, of=Manifest(model, "0.1.0")) == parse_filter(filter)


def test_conditions() -> None:
    assert parse_filter(None) == parse_filter({}) == parse_filter({"$and": [{}, {"$and": []}]}) == EVERYTHING
    assert parse_filter({"a": 1, "b": {"$gte": 1, "$lt": 2}}) == And(
        (AnyOf("a", (1,)), Range("b", "number", gte=1, lt=2))
    )
    assert parse_filter({"$or": [{"a": {"$exists": True}}, {"$not": {"b": [1, "x"]}}]}) == Or(
        (Exists("a"), Not(AnyOf("b", (1, "x"))))
    )
    assert parse_filter({"d": NOON}) == Range("d", "time", gte=NOON.timestamp(), lte=NOON.timestamp())


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("lang=de", "must be a mapping"),
        ({"a": object()}, "'a': cannot compare"),
        ({"a": 10**5000}, "'a': cannot compare"),
        ({"a": NESTED}, "'a': cannot compare"),
        ({"a": {"$like": "x"}}, r"unknown operator '\$like'.*\$exists"),
        ({"$nor": []}, r"'\$nor': unknown operator"),
        ({"a": {}}, "names no operator"),
        ({"a": {"$in": "x"}}, "take a list"),
        ({"a": {"$gt": [1]}}, r"\$gt cannot compare"),
        ({"a": {"$gt": "tomorrow"}}, "ISO 8601"),
        ({"a": {"$gt": 1, "$lt": NOON}}, "one bound is a number and one a time"),
        ({"a": {"$exists": "yes"}}, "True or False"),
        ({"$and": {"a": 1}}, "list of filters"),
        ({"$or": ["a"]}, "must be a mapping"),
        ({"document_id": {"$gt": "a"}}, "takes no range"),
        ({"document_id": NOON}, "cannot compare"),
        ({"document_id": 42}, "a document's id is text, got 42: give '42'"),
        ({"document_id": {"$ne": 42}}, "is text, got 42: give '42'"),
        ({"document_id": {"$nin": ["a", 4.5]}}, "is text, got 4.5: give '4.5'"),
        ({3: 1}, "keys are strings"),
    ],
)
def test_what_makes_no_sense_is_refused(filter: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_filter(filter)


def test_depth_has_a_limit() -> None:
    deep: Mapping[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH):
        deep = {"$not": deep}
    assert matches(chunk(a=1), deep) is (MAX_DEPTH % 2 == 0)
    with pytest.raises(InputError, match="levels deep"):
        parse_filter({"$and": [deep]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
) | st.sampled_from(["2024-01-02T00:00:00Z", "2024-01-03", "de", 2001, 2**53 + 1, [1, 2002.5], ["de", True]])


@settings(max_examples=300, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(["lang", "year", "tags", "when", "big", 'a."b"', "page"]), JSON), filters())
def test_the_payload_says_what_the_metadata_say(metadata: dict[str, Any], filter: Mapping[str, Any]) -> None:
    one = Chunk("c", "a.md", "text", 0, 4, metadata=metadata)
    payload = json.loads(json.dumps(chunk_to_payload(one)))
    assert by_payload(parse_filter(filter), payload) is matches(one, filter)


def by_payload(condition: Condition, payload: Payload) -> bool:
    """What an engine does: it sees the payload, never the metadata."""
    match condition:
        case And(conditions):
            held = all(by_payload(one, payload) for one in conditions)
        case Or(conditions):
            held = any(by_payload(one, payload) for one in conditions)
        case Not(inner):
            held = not by_payload(inner, payload)
        case Exists():
            held = condition.digest in payload["keys"]
        case Range():
            held = any(condition.holds(value) for value in payload[condition.field].get(condition.digest, []))
        case AnyOf(key, values) if key == DOCUMENT_ID:
            held = payload["document_id"] in values
        case AnyOf():
            held = not set(condition.terms).isdisjoint(payload["terms"])
    return held
