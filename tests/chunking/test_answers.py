"""From small chunks in a store to answers from their passages, whose quotes are exact."""

from __future__ import annotations

import pytest

from m3rag.answering import Extractive, Generative
from m3rag.chunking import Chunker, siblings, widened
from m3rag.ingest import encoded_parts
from m3rag.retrieval import HybridRetriever
from m3rag.store import DocumentRecord
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import Document, Page

QUESTION = "Where do mallards dive for shellfish"
SENTENCES = [
    "Many birds live near the harbour.",
    "They come in spring.",
    "Mallards dive for shellfish in the bay.",
    "That  bay is shallow,\nand the water is clear.",
    "Boats leave at noon.",
    "Nobody swims there in winter.",
]
TEXT = "\n\n".join([" ".join(f"Report {i} tells of other towns and roads." for i in range(12)), "  ".join(SENTENCES)])
DOCUMENT = Document("birds.md", TEXT, "hash", pages=(Page(1, 0, 100), Page(2, 100, len(TEXT))))


class Writer:
    """A language model that says what it was told, and keeps what it was shown."""

    name = "writer"

    def __init__(self, reply):
        self.reply, self.shown = reply, ""

    def complete(self, messages, **_):
        self.shown = "\n".join(message.content for message in messages)
        return self.reply

    def stream(self, messages, **_):
        yield self.complete(messages)


@pytest.fixture(params=["small-to-big", "sentence-window"])
def store(request):
    encoder = HashEncoder()
    chunks = Chunker(strategy=request.param, chunk_tokens=48, overlap_tokens=0).split(DOCUMENT, encoder)
    store = MemoryStore(encoder.info)
    record = DocumentRecord(id=DOCUMENT.id, title="Birds", version="1", chunks=len(chunks), page_starts=(0, 100))
    store.put_document(record, encoded_parts(chunks, encoder))
    return store


def test_a_quoted_answer_may_stand_in_a_neighbour_of_what_was_found(store):
    encoder = HashEncoder()
    (hit,) = HybridRetriever(encoder, store).search(QUESTION, k=1)
    answer = Extractive(encoder, store, threshold=-2.0).answer(QUESTION, siblings([hit], store.chunks_of))
    assert answer.answered
    assert len(answer.hits) > 1
    assert "Mallards dive for shellfish in the bay." in {c.quote for c in answer.citations}
    assert all(TEXT[c.start : c.end] == c.quote for c in answer.citations)


def test_a_written_answer_cites_the_passage_exactly(store):
    hits = widened(HybridRetriever(HashEncoder(), store).search(QUESTION, k=1), store.chunks_of)
    model = Writer("The bay is shallow and its water is clear [1].")
    answer = Generative(model).answer(QUESTION, hits)
    assert hits[0].chunk.text in model.shown
    (citation,) = answer.citations
    assert citation.quote == TEXT[citation.start : citation.end]
    assert "That  bay is shallow,\nand the water is clear." in citation.quote
    assert citation.page == 2
