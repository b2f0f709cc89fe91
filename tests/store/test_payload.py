"""The stored form of chunks and records: whole, plain JSON, and stable."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.store.payload import chunk_from_payload, chunk_to_payload, record_from_payload, record_to_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.types import Chunk

CHUNK = Chunk(
    id="c",
    document_id="d",
    text="téxt 🦆",
    start=3,
    end=9,
    page=2,
    headings=("A", "B"),
    metadata={"n": 1.0, "big": 2**80, "when": "2024-05-01", "list": [1, "x", None, {"a": []}], "": None},
)
NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]

RECORD = DocumentRecord("d", "Title", "v1", 3, source="/d", page_starts=(0, 5), metadata={"a": [1, None]})


def test_chunks_and_records_come_back_through_json() -> None:
    assert chunk_from_payload(json.loads(json.dumps(chunk_to_payload(CHUNK)))) == CHUNK
    assert record_from_payload(json.loads(json.dumps(record_to_payload(RECORD)))) == RECORD
    bare = Chunk("c", "d", "", 0, 0)
    assert chunk_from_payload(chunk_to_payload(bare)) == bare


TERMS = [
    "7affc9d06b3d7d7a0dbb0d7d7902287a",
    "9c5770f0ee16a2a31d9b379bf5ea25f5",
    "be5f7fdd7755e7fa17b48a1cb02c5257",
]
PLACE_TERMS = [
    "b66271d8dc5763159bd8ed0c75fcc5c4",
    "aacf9699cc2864b051c4b7aeb0b5d3f0",
    "15e1c497b6237550e4c3fa62e53aa6ca",
    "758cddda2ed4cb9f6811f8a07a9ef9d5",
]
N, WHEN = "922457c36d1094e4a267693f609f086d", "5a60090df7c8bdfea286e0f024a64154"
SOURCE, PAGE = "7bbcd0adcab0d531bf9177353678781a", "ebd0fdbc40109d74a7d5b570cd635566"
HEADINGS = "14f9290d8a42001f53d08c8684522b7a"


def test_what_filters_match_is_the_same_in_every_version_of_m3rag() -> None:
    # An index that is on disk has these digests: a change needs a new FORMAT.
    payload = chunk_to_payload(replace(CHUNK, metadata={"n": 1.0, "when": ["2024-05-01", True]}))
    assert payload["terms"] == sorted(TERMS + PLACE_TERMS)
    assert payload["keys"] == sorted([N, WHEN, SOURCE, PAGE, HEADINGS])
    assert payload["numbers"] == {N: [1.0], PAGE: [2.0]}
    assert payload["times"] == {WHEN: [1714521600.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"a": object()}}, "JSON"),
        ({"metadata": {"a": float("inf")}}, "JSON"),
        ({"metadata": {"a": 10**5000}}, "JSON"),
        ({"metadata": {"a": NESTED}}, "JSON"),
        ({"metadata": {1: "a"}}, "keys must be strings"),
        ({"text": "\ud800"}, "Unicode"),
        ({"id": "\ud800"}, "Unicode"),
        ({"document_id": "\ud800"}, "Unicode"),
        ({"headings": ("\ud800",)}, "Unicode"),
    ],
)
def test_what_cannot_be_stored_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chunk_to_payload(replace(CHUNK, **change))
