"""A corpus as chunks: what is whole, what is split, and that nothing is encoded twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation.corpus import AT_ONCE, ROOM_TOKENS, chunked, corpus_name, hash_of, take_corpus
from m3rag.output import M3Output
from m3rag.settings import Settings
from m3rag.testing import HashEncoder


class ShortEncoder(HashEncoder):
    """Takes few tokens, and remembers what it encodes."""

    def __init__(self, *, limit: int = 20, dense_dim: int = 32) -> None:
        super().__init__(dense_dim=dense_dim)
        self.limit = limit
        self.encoded: list[str] = []

    @property
    def max_length(self) -> int:
        return self.limit

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        self.encoded += texts
        return super().encode_documents(texts)


LONG = " ".join(f"word{i}." for i in range(100))


def test_only_what_is_too_long_is_split() -> None:
    encoder = ShortEncoder()
    corpus = {"short": "Ducks swim.", "empty": "", "long": LONG, "blank": " " * 500, "exact": " ".join(["w"] * 12)}
    chunks = chunked(corpus, encoder)
    assert [chunk.id for chunk in chunks if chunk.document_id != "long"] == ["short", "empty", "blank", "exact"]
    assert list(dict.fromkeys(chunk.document_id for chunk in chunks)) == list(corpus)
    parts = [chunk for chunk in chunks if chunk.document_id == "long"]
    assert len(parts) >= 9
    for chunk in parts:
        assert LONG[chunk.start : chunk.end] == chunk.text
        assert len(encoder.word_spans(chunk.encoded_text)) <= encoder.max_length - ROOM_TOKENS
    assert {word for chunk in parts for word in chunk.text.split()} == set(LONG.split())


def test_chunks_may_be_smaller_but_not_longer_than_the_model_takes() -> None:
    encoder = ShortEncoder()
    assert len(chunked({"a": LONG}, encoder, chunk_tokens=8)) > len(chunked({"a": LONG}, encoder))
    assert len(chunked({"a": LONG}, HashEncoder())) == 1
    for tokens in (0, 13):
        with pytest.raises(ConfigurationError, match=f"chunk_tokens is {tokens}; it must be from 1 to 12"):
            chunked({"a": LONG}, encoder, chunk_tokens=tokens)
    with pytest.raises(InputError, match="corpus is empty"):
        chunked({}, encoder)


def test_an_interrupted_run_is_taken_up_where_it_stopped() -> None:
    corpus = {str(i): f"Text number {i}" for i in range(2 * AT_ONCE + 10)}
    encoder, done = ShortEncoder(), []

    def stop(n: int, of: int) -> None:
        done.append((n, of))
        raise KeyboardInterrupt

    with Collection(":memory:", encoder=encoder, settings=Settings()) as collection:
        with pytest.raises(KeyboardInterrupt):
            take_corpus(collection, corpus, progress=stop)
        assert done == [(AT_ONCE, len(corpus))]
        assert collection.store.count() == AT_ONCE
        take_corpus(collection, corpus)
        assert collection.store.count() == len(corpus)
        assert sorted(encoder.encoded) == sorted(corpus.values())
        take_corpus(collection, {**corpus, "0": "Another text"})
        assert encoder.encoded[len(corpus) :] == ["Another text"]
        assert collection.search("Another text", k=1)[0].chunk.document_id == "0"


def test_names_tell_corpora_models_and_chunks_apart() -> None:
    corpus = {"a": "x", "b": "y"}
    assert hash_of(corpus) == hash_of({"b": "y", "a": "x"})
    assert len({hash_of(c) for c in (corpus, {"a": "xb", "b": "y"}, {"ax": "", "b": "y"}, {}, {"a": "\ud800"})}) == 5
    encoder = ShortEncoder()
    names = {
        corpus_name(encoder, corpus),
        corpus_name(encoder, {"a": "x"}),
        corpus_name(encoder, corpus, chunk_tokens=5),
        corpus_name(ShortEncoder(limit=30), corpus),
        corpus_name(ShortEncoder(dense_dim=16), corpus),
    }
    assert len(names) == 5
