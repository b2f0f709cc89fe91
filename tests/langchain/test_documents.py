from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime
from typing import Any

import pytest
from langchain_core.documents import Document

from m3rag.errors import InputError
from m3rag.langchain.documents import DOOR, to_chunk, to_document, to_document_with_scores
from m3rag.store.filters import matches
from m3rag.types import Chunk, Hit, LegScores

RING: list[Any] = []
RING.append({"ring": RING})


def through(document: Document, id: str = "c1") -> Document:
    return to_document(to_chunk(document, id))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"source": "a.pdf", "page": 3, "start": 0, "end": 6, "headings": ["Birds"]},
        {"nested": {"deep": [1, 2.5, None, True]}, "größe": "🦆", "": "empty key"},
        {"document_id": 5, "scores": "mine", "page": "iv", "headings": "none"},
        {"m3rag:parent": [0, 6], "m3rag:gap": " ", DOOR: {"mine": 1}, "start_index": 0},
    ],
)
def test_a_document_comes_back_exactly(metadata: dict[str, Any]) -> None:
    document = Document(id="mine", page_content="Ducks.", metadata=deepcopy(metadata))
    assert through(document) == Document(id="c1", page_content="Ducks.", metadata=metadata)
    assert document == Document(id="mine", page_content="Ducks.", metadata=metadata)


def test_neither_way_shares_memory() -> None:
    document = Document(page_content="Ducks.", metadata={"tags": ["a"]})
    chunk = to_chunk(document, "c1")
    to_document(chunk).metadata["tags"].append("b")
    document.metadata["tags"].append("c")
    assert to_document(chunk).metadata == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, ("c1", 0, 6, None, ())),
        ({"source": "a.pdf"}, ("a.pdf", 0, 6, None, ())),
        ({"source": ""}, ("c1", 0, 6, None, ())),
        ({"source": 7}, ("c1", 0, 6, None, ())),
        ({"document_id": "a", "source": "a.pdf"}, ("a", 0, 6, None, ())),
        ({"document_id": 7, "source": "a.pdf"}, ("7", 0, 6, None, ())),
        ({"document_id": 0}, ("0", 0, 6, None, ())),
        ({"document_id": True, "source": "a.pdf"}, ("a.pdf", 0, 6, None, ())),
        ({"start": 5, "end": 11, "start_index": 9}, ("c1", 5, 11, None, ())),
        ({"start": 5, "end": 10}, ("c1", 0, 6, None, ())),
        ({"start": True, "end": 7}, ("c1", 0, 6, None, ())),
        ({"start_index": 40}, ("c1", 40, 46, None, ())),
        ({"start_index": -1}, ("c1", 0, 6, None, ())),
        ({"page": 3}, ("c1", 0, 6, 3, ())),
        ({"page": 0}, ("c1", 0, 6, None, ())),
        ({"page": True}, ("c1", 0, 6, None, ())),
        ({"page": "3"}, ("c1", 0, 6, None, ())),
        ({"page": 0, "total_pages": 9}, ("c1", 0, 6, 1, ())),  # PyPDFLoader counts from 0
        ({"headings": ["Birds", "Ducks"]}, ("c1", 0, 6, None, ("Birds", "Ducks"))),
        ({"headings": ["Birds", 2]}, ("c1", 0, 6, None, ())),
    ],
)
def test_what_the_metadata_say_of_the_place_is_taken_where_it_is_sound(
    metadata: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    chunk = to_chunk(Document(page_content="Ducks.", metadata=metadata), "c1")
    assert (chunk.document_id, chunk.start, chunk.end, chunk.page, chunk.headings) == expected


def test_a_splitters_note_of_the_passage_means_nothing_to_answers() -> None:
    document = Document(page_content="Ducks.", metadata={"m3rag:parent": [0, 60], "m3rag:gap": ""})
    assert set(to_chunk(document, "c1").metadata) == {DOOR}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lang": "en", "when": {1, 2}}, "document 'c1': the metadata of 'when' are not JSON .*set"),
        ({"score": float("nan")}, "the metadata of 'score' are not JSON"),
        ({"deep": {"set": {1}}}, "the metadata of 'deep' are not JSON .*set"),
        ({"ring": RING}, "the metadata of 'ring' are not JSON"),
        ({"deep": [{1: "a", "1": "b"}]}, "the metadata of 'deep' are not JSON .two of its keys are '1' there"),
        ({"deep": {None: 1, "null": 2}}, "two of its keys are 'null' there"),
    ],
)
def test_metadata_that_are_not_json_are_named(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_chunk(Document(page_content="Ducks.", metadata=metadata), "c1")


def test_dates_become_text_that_filters_understand() -> None:
    when = datetime(2024, 1, 2, 3, tzinfo=UTC)
    chunk = to_chunk(Document(page_content="Ducks.", metadata={"when": when, "days": [date(2024, 1, 2)]}), "c1")
    assert to_document(chunk).metadata == {"when": "2024-01-02T03:00:00+00:00", "days": ["2024-01-02"]}
    assert matches(chunk, {"when": {"$gte": when}, "days": date(2024, 1, 2)})


def test_a_key_that_is_no_string_is_named() -> None:
    document = Document.model_construct(page_content="Ducks.", metadata={7: "a"})
    with pytest.raises(InputError, match="the metadata key 7 is no string"):
        to_chunk(document, "c1")


A_CHUNK = Chunk("c1", "a.pdf", "Ducks.", 5, 11, 2, ("Birds",), {"lang": "en", "m3rag:parent": [0, 20], "page": "ii"})


def test_a_chunk_of_another_door_says_where_it_stands() -> None:
    place = {"document_id": "a.pdf", "source": "a.pdf", "start": 5, "end": 11, "page": 2, "headings": ["Birds"]}
    assert to_document(A_CHUNK) == Document(id="c1", page_content="Ducks.", metadata={"lang": "en", **place})


def test_scores_stand_beside_the_place() -> None:
    scored = to_document_with_scores(Hit(A_CHUNK, 0.75, LegScores(dense=0.5)))
    legs = {"dense": 0.5, "lexical": None, "colbert": None, "bm25": None, "rerank": None}
    assert scored.metadata == {**to_document(A_CHUNK).metadata, "relevance_score": 0.75, "scores": legs}


def test_with_scores_a_document_that_came_in_keeps_what_it_says() -> None:
    chunk = to_chunk(Document(page_content="Ducks.", metadata={"page": 0, "total_pages": 3, "source": "a.pdf"}), "c1")
    metadata = to_document_with_scores(Hit(chunk, 0.75)).metadata
    assert (metadata["page"], metadata["total_pages"], metadata["source"]) == (0, 3, "a.pdf")
    assert (metadata["document_id"], metadata["start"], metadata["end"]) == ("a.pdf", 0, 6)
    assert metadata["relevance_score"] == 0.75
    assert not any(key.startswith("m3rag:") for key in metadata)
