from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.chunking import RESERVED, Chunker, parent_of, siblings, widened
from m3rag.errors import InputError
from m3rag.testing import HashEncoder
from m3rag.types import Document, Heading, Hit, Page

WORDS = HashEncoder().word_spans
TEXT = "\n\n".join(
    " ".join(f"Paragraph {p} says in sentence {s} that ducks swim.  " for s in range(6)).strip() for p in range(8)
)
DOCUMENT = Document("d.md", TEXT, "hash", metadata={"lang": "en"})
STRATEGIES = ["small-to-big", "sentence-window"]


@pytest.fixture(params=STRATEGIES)
def chunks(request):
    return Chunker(strategy=request.param, chunk_tokens=64, overlap_tokens=0).split(DOCUMENT, WORDS)


def hits_of(chunks, numbers):
    return [Hit(chunks[n], 1 / (rank + 1)) for rank, n in enumerate(numbers)]


def test_a_passage_is_word_for_word_the_documents(chunks):
    for chunk in chunks:
        (passage,) = widened([Hit(chunk, 0.5)], lambda _: chunks)
        assert TEXT[passage.chunk.start : passage.chunk.end] == passage.chunk.text
        assert (passage.chunk.start, passage.chunk.end) == parent_of(chunk)
        assert passage.chunk.start <= chunk.start
        assert passage.chunk.end >= chunk.end
        assert len(passage.chunk.text) > len(chunk.text)
        assert len(WORDS(passage.chunk.text)) <= 64
        assert passage.chunk.id == chunk.id
        assert passage.score == 0.5
        assert passage.chunk.metadata == {"lang": "en"}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from(STRATEGIES), st.text(" \n\tab.c。", max_size=300))
def test_passages_share_no_text_and_keep_the_order(numbers, strategy, tail):
    doc = replace(DOCUMENT, text=TEXT + tail)
    chunks = Chunker(strategy=strategy, chunk_tokens=40, overlap_tokens=0).split(doc, WORDS)
    hits = hits_of(chunks, list(dict.fromkeys(n % len(chunks) for n in numbers)))
    passages = [hit.chunk for hit in widened(hits, lambda _: chunks)]
    for one in passages:
        assert doc.text[one.start : one.end] == one.text
    spans = sorted((p.start, p.end) for p in passages)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(any(a <= hit.chunk.start and hit.chunk.end <= b for a, b in spans) for hit in hits)
    ranks = [next(i for i, hit in enumerate(hits) if hit.chunk.id == p.id) for p in passages]
    assert ranks == sorted(ranks)


def test_siblings_are_the_stored_chunks_of_the_same_passages(chunks):
    hits = hits_of(chunks, [9, 2, 10])
    found = siblings(hits, lambda _: chunks)
    for passage in widened(hits, lambda _: chunks):
        of_it = [hit for hit in found if passage.chunk.start <= hit.chunk.start < passage.chunk.end]
        assert (of_it[0].chunk.start, of_it[-1].chunk.end) == (passage.chunk.start, passage.chunk.end)
        assert {hit.score for hit in of_it} == {passage.score}
    assert all(hit.chunk in chunks for hit in found)
    assert len({hit.chunk.id for hit in found}) == len(found)


def test_hits_without_a_parent_stay_as_they_are():
    chunks = Chunker(chunk_tokens=32, overlap_tokens=4).split(DOCUMENT, WORDS)
    hits = hits_of(chunks, [3, 1])
    assert widened(hits, lambda _: []) == hits
    assert siblings(hits, lambda _: []) == hits


def test_a_passage_has_the_page_it_begins_on_and_the_headings_of_all_of_it():
    text = "# A\n\nOne two three four five.\n\n## B\n\nSix seven eight nine ten."
    at = text.index("## B")
    doc = Document(
        "d", text, "hash", pages=(Page(1, 0, at), Page(2, at, len(text))),
        headings=(Heading("A", 1, 0, 3), Heading("B", 2, at, at + 4)),
    )  # fmt: skip
    chunks = Chunker(strategy="small-to-big:parts=6", chunk_tokens=48, overlap_tokens=0).split(doc, WORDS)
    last = chunks[-1]
    assert (last.page, last.headings) == (2, ("A", "B"))
    (passage,) = widened([Hit(last, 1.0)], lambda _: chunks)
    assert (passage.chunk.page, passage.chunk.headings, passage.chunk.text) == (1, ("A",), text)


def test_a_document_that_changed_is_told(chunks):
    with pytest.raises(InputError, match="its document has changed; search again"):
        widened([Hit(chunks[0], 1.0)], lambda _: chunks[3:])
    moved = [replace(chunk, start=chunk.start + 7, end=chunk.end + 7) for chunk in chunks]
    with pytest.raises(InputError, match="its document has changed; search again"):
        widened([Hit(chunks[0], 1.0)], lambda _: moved)


def test_of_a_passage_that_lost_chunks_the_rest_around_the_one_found_is_given(chunks):
    numbers = range(len(chunks))
    for gone in numbers:
        stored = [chunk for chunk in chunks if chunk is not chunks[gone]]
        for number in set(numbers) - {gone}:
            (passage,) = widened([Hit(chunks[number], 1.0)], lambda _, stored=stored: stored)
            start, end = parent_of(chunks[number])
            # The oracle: the whole passage, cut off at the chunk that is gone.
            if number < gone:
                end = min(end, chunks[gone - 1].end)
            else:
                start = max(start, chunks[gone + 1].start)
            assert (passage.chunk.start, passage.chunk.end) == (start, end)
            assert passage.chunk.text == TEXT[start:end]
            parts = siblings([Hit(chunks[number], 1.0)], lambda _, stored=stored: stored)
            assert (parts[0].chunk.start, parts[-1].chunk.end) == (start, end)


def test_chunks_that_are_stored_twice_are_not_joined_into_one_passage(chunks):
    twice = [copy for chunk in chunks for copy in (chunk, replace(chunk, id=f"{chunk.id} again"))]
    for chunk in twice:
        (passage,) = widened([Hit(chunk, 1.0)], lambda _: twice)
        assert passage.chunk.text == TEXT[passage.chunk.start : passage.chunk.end]


def test_a_document_cannot_set_what_is_ours():
    hostile = replace(DOCUMENT, metadata={f"{RESERVED}parent": [0, 10**9]})
    with pytest.raises(InputError, match="metadata key 'm3rag:parent' is reserved"):
        Chunker().split(hostile, WORDS)
