"""The words shown for a hit account for its lexical score and stand where they are said to."""

from __future__ import annotations

import pytest

from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError
from m3rag.retrieval import HybridRetriever
from m3rag.retrieval.words import aligned_words, matched_words
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit

TEXTS = {
    "ducks": ("The duckling's waterproof feathers: ducks swim, ducks dive.", ("Birds", "Waterproof ducks")),
    "german": ("Die Entenküken schlüpfen nach vier Wochen.", ()),
    "chinese": ("鸭子在池塘里游泳。", ()),
    "hindi": ("बत्तखें तालाब में तैरती हैं।", ()),
    "empty words": ("... !!! ...", ()),
}


def chunks() -> list[Chunk]:
    return [
        Chunk(id=name, document_id=name, text=text, start=7, end=7 + len(text), headings=headings)
        for name, (text, headings) in TEXTS.items()
    ]


def stored(encoder: Encoder) -> MemoryStore:
    store = MemoryStore(encoder.info)
    for chunk in chunks():
        record = DocumentRecord(id=chunk.document_id, title="", version="1", chunks=1)
        store.put_document(record, [([chunk], encoder.encode_documents([chunk.encoded_text]))])
    return store


@pytest.fixture(scope="module")
def encoder() -> M3Encoder:
    return M3Encoder("mini", device="cpu")


@pytest.mark.parametrize(
    "query", ["Do waterproof ducks swim?", "Wann schlüpfen Entenküken?", "鸭子游泳", "तालाब में बत्तखें"]
)
def test_contributions_sum_to_the_lexical_score_and_spans_hold(encoder: M3Encoder, query: str) -> None:
    store = stored(encoder)
    hits = HybridRetriever(encoder, store).search(query, k=10, mode="all")
    assert any((hit.scores.lexical or 0) > 0 for hit in hits)
    for hit in hits:
        for found in (matched_words(encoder, query, hit, store=store), matched_words(encoder, query, hit)):
            assert sum(word.contribution for word in found) == pytest.approx(hit.scores.lexical, abs=2e-3)
            assert found == sorted(found, key=lambda word: (-word.contribution, word.start, word.text))
            for word in found:
                assert word.contribution > 0
                assert hit.chunk.text[word.start : word.end] in ("", word.text)
                assert word.text in hit.chunk.encoded_text


def test_words_are_whole_and_one_for_all_their_tokens(encoder: M3Encoder) -> None:
    german = Hit(next(chunk for chunk in chunks() if chunk.id == "german"), 1.0)
    assert len(encoder.word_spans("Entenküken")) > 1
    assert [word.text for word in matched_words(encoder, "Entenküken", german)] == ["Entenküken"]
    hindi = Hit(next(chunk for chunk in chunks() if chunk.id == "hindi"), 1.0)
    assert [word.text for word in matched_words(encoder, "बत्तखें", hindi)] == ["बत्तखें"]


def test_a_word_of_the_headings_has_no_place_in_the_text() -> None:
    encoder = HashEncoder()
    ducks = Hit(chunks()[0], 1.0)
    assert [tuple(word)[:3] for word in matched_words(encoder, "birds dive", ducks)] == [
        (0, 0, "Birds"),
        (54, 58, "dive"),
    ]
    assert [tuple(word)[:3] for word in aligned_words(encoder, "birds dive", ducks)] == [
        (0, 0, "Birds"),
        (54, 58, "dive"),
    ]


def test_alignment_says_how_strongly_and_for_what() -> None:
    encoder = HashEncoder()
    (dive, swim) = sorted(aligned_words(encoder, "Swim? Dive!", Hit(chunks()[0], 1.0)), key=lambda word: word.text)
    assert (dive.text, dive.query, swim.text, swim.query) == ("dive", ("Dive",), "swim", ("Swim",))
    assert dive.strength == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("query", ["Do waterproof ducks swim?", "池塘", "?!"])
def test_alignments_of_a_real_tokenizer_stay_in_bounds(encoder: M3Encoder, query: str) -> None:
    for chunk in chunks():
        found = aligned_words(encoder, query, Hit(chunk, 1.0))
        assert found == sorted(found)
        assert bool(found) is (query != "?!")
        for word in found:
            assert 0 <= word.strength <= 1
            assert chunk.text[word.start : word.end] in ("", word.text)
            assert all(part in query for part in word.query)


def test_an_encoder_that_knows_no_tokens_is_refused() -> None:
    class Opaque:
        info = HashEncoder().info

    for explain in (matched_words, aligned_words):
        with pytest.raises(ConfigurationError, match="cannot tell its tokens"):
            explain(Opaque(), "ducks", Hit(chunks()[0], 1.0))  # type: ignore[arg-type,operator]
