from __future__ import annotations

import pytest

from m3rag.chunking import Chunker
from m3rag.errors import ConfigurationError
from m3rag.testing import HashEncoder
from m3rag.types import Document

POND = [f"Ducks swim on the pond and ducks dive in pond water number {i}." for i in range(8)]
BANK = [f"Interest rates of banks rise while loans cost money, says report {i}." for i in range(8)]
DOCUMENT = Document("d", " ".join([*POND, *BANK]), "hash")


def test_it_cuts_where_the_subject_changes():
    chunks = Chunker(strategy="semantic:percentile=95", overlap_tokens=0).split(DOCUMENT, HashEncoder())
    assert [c.text for c in chunks] == [" ".join(POND), " ".join(BANK)]


def test_what_is_too_long_is_cut_between_sentences():
    chunker = Chunker(strategy="semantic:percentile=95", chunk_tokens=32, overlap_tokens=0)
    chunks = chunker.split(DOCUMENT, HashEncoder())
    assert len(chunks) > 4
    assert all(c.text.endswith(".") for c in chunks)
    assert all(("pond" in c.text) != ("loans" in c.text) for c in chunks)


def test_percentile_100_cuts_nothing_that_fits():
    (chunk,) = Chunker(strategy="semantic:percentile=100", chunk_tokens=400).split(DOCUMENT, HashEncoder())
    assert chunk.text == DOCUMENT.text


def test_sentences_are_encoded_in_batches_each_once():
    class Recording(HashEncoder):
        def __init__(self):
            super().__init__()
            self.calls = []

        def encode_dense(self, texts, *, role):
            self.calls.append((list(texts), role))
            return self.encode_documents(texts).dense

    encoder = Recording()
    doc = Document("d", " ".join(POND * 80), "hash")
    Chunker(strategy="semantic").split(doc, encoder)
    assert [len(texts) for texts, _ in encoder.calls] == [256, 256, 128]
    assert {role for _, role in encoder.calls} == {"document"}
    assert [text for texts, _ in encoder.calls for text in texts] == POND * 80


def test_a_tokenizer_alone_is_not_enough():
    with pytest.raises(ConfigurationError, match=r"give split\(\) the encoder itself instead of its word_spans"):
        Chunker(strategy="semantic").split(DOCUMENT, HashEncoder().word_spans)


def test_a_single_sentence_has_no_gap():
    (chunk,) = Chunker(strategy="semantic").split(Document("d", "Only one here.", "h"), HashEncoder())
    assert chunk.text == "Only one here."
