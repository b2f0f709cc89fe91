"""The laws that every strategy keeps, on any text and on hostile ones."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.chunking import Chunker, document_version
from m3rag.encoder.mini import ensure_mini
from m3rag.encoder.tokenizer import Tokenizer
from m3rag.errors import ConfigurationError
from m3rag.reading import read
from m3rag.testing import HashEncoder
from m3rag.types import Document, Heading

NAMES = ["structure", "fixed", "sentence-window", "small-to-big", "semantic", "semantic:percentile=0"]
ENCODER = HashEncoder()

TEXTS = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from(" \n\t.!?。、_-|#\u3000\u200b")
    | st.sampled_from("abc XYZ éß ΑΩ 日本語ไทย กำ ខ្មែរ हिन्दी العربية"),
    max_size=300,
)


@pytest.fixture(scope="module")
def mini_tokenizer():
    return Tokenizer(ensure_mini() / "tokenizer.json")


class Counted(HashEncoder):
    """The fake's vectors with the real tokenizer's counts."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def word_spans(self, text):
        return self.tokenizer.word_spans(text)


def check_laws(doc, chunks, chunker, spans):
    text, starts = doc.text, spans[:, 0]
    covered = np.zeros(len(text), bool)
    for number, chunk in enumerate(chunks):
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text
        assert chunk.text == chunk.text.strip()
        assert chunk.id.endswith(f"-{number}")
        at = np.searchsorted(starts, [chunk.start, chunk.end])
        # Several tokens may begin at one character, which no cut can part.
        assert at[1] - at[0] <= chunker.chunk_tokens or len(np.unique(starts[at[0] : at[1]])) == 1
        covered[chunk.start : chunk.end] = True
    assert all(done or c.isspace() for c, done in zip(text, covered, strict=True))
    for one, two in pairwise(chunks):
        assert one.start < two.start
        assert one.end < two.end
        at = np.searchsorted(starts, [two.start, one.end])
        assert at[1] - at[0] <= chunker.overlap_tokens


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=80)
@given(
    text=TEXTS, chunk=st.integers(1, 40), overlap=st.integers(0, 15), marks=st.lists(st.integers(0, 300), max_size=6)
)
def test_the_laws_hold_for_any_text(name, text, chunk, overlap, marks):
    marks = sorted({m for m in marks if m < len(text)})
    doc = Document("d", text, "hash", headings=tuple(Heading(f"h{m}", m % 4 + 1, m, m + 1) for m in marks))
    chunker = Chunker(strategy=name, chunk_tokens=chunk, overlap_tokens=min(overlap, (chunk - 1) // 2))
    check_laws(doc, chunker.split(doc, ENCODER), chunker, ENCODER.word_spans(text))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        " " * 1_000_000,
        "\u0301" * 200_000,
        "\x00" * 100_000,
        "a\x00b " * 50_000,
        "\n" * 100_000 + "end",
        "- item\n" * 20_000,
        "a | b\n" * 20_000,
        "```\n" * 20_001,
        "數" * 100_000,
    ],
    ids=["word", "blanks", "marks", "nul", "nuls", "lines", "list", "table", "fences", "han"],
)
@pytest.mark.timeout(120)
def test_hostile_texts_end_and_keep_the_laws(mini_tokenizer, name, text):
    doc, encoder = Document("d", text, "hash"), Counted(mini_tokenizer)
    chunker = Chunker(strategy=name)
    check_laws(doc, chunker.split(doc, encoder), chunker, encoder.word_spans(text))


@pytest.mark.parametrize("name", NAMES)
def test_real_paragraphs_of_six_languages(mini_tokenizer, multilingual_texts, name):
    doc, encoder = Document("d", "\n\n".join(multilingual_texts), "hash"), Counted(mini_tokenizer)
    chunker = Chunker(strategy=name, chunk_tokens=128, overlap_tokens=16)
    chunks = chunker.split(doc, encoder)
    check_laws(doc, chunks, chunker, encoder.word_spans(doc.text))
    assert len(chunks) > 30


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_can_be_read(shared_data, mini_tokenizer, name):
    encoder, seen = Counted(mini_tokenizer), 0
    for line in (shared_data / "files" / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path = shared_data / "files" / entry["file"]
        if entry["must"] != "parse" or path.stat().st_size > 300_000:
            continue
        doc = read(path)
        chunker = Chunker(strategy=name)
        check_laws(doc, chunker.split(doc, encoder), chunker, encoder.word_spans(doc.text))
        seen += 1
    assert seen >= 55


def test_no_chunk_begins_with_a_mark_of_its_predecessor_where_words_are_long_enough(mini_tokenizer):
    text = "ភាសាខ្មែរជាភាសាផ្លូវការរបស់ប្រទេសកម្ពុជា។ " * 40 + "ประเทศไทยเป็นประเทศที่ตั้งอยู่ในเอเชีย " * 40
    for name in NAMES:
        for chunk in Chunker(strategy=name, chunk_tokens=40, overlap_tokens=4).split(
            Document("d", text, "h"), Counted(mini_tokenizer)
        ):
            assert unicodedata.category(chunk.text[0]) not in {"Mn", "Mc", "Me"}


def test_the_version_changes_with_strategy_and_every_option():
    chunkers = [
        Chunker(),
        Chunker(late=True),
        Chunker(chunk_tokens=128),
        Chunker(overlap_tokens=16),
        *(Chunker(strategy=name) for name in ("fixed", "semantic", "small-to-big", "sentence-window")),
        Chunker(strategy="semantic:percentile=90"),
        Chunker(strategy="small-to-big:parts=2"),
        Chunker(strategy="sentence-window:sentences=1"),
    ]
    doc = Document("d", "text", "hash")
    assert len({document_version(doc, chunker) for chunker in chunkers}) == len(chunkers)
    same = Chunker(strategy="semantic:percentile=80")
    assert document_version(doc, same) == document_version(doc, Chunker(strategy="semantic"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("structur", "did you mean structure. there are structure, fixed"),
        ("", "no chunking strategy is called ''"),
        ("fixed:size=3", "strategy fixed has no option 'size': it has none"),
        ("semantic:percent=3", "has no option 'percent': there is percentile"),
        ("semantic:percentile=many", "percentile must be a number, got 'many'"),
        ("semantic:percentile=101", "percentile is 101.0; it must be 0 to 100"),
        ("semantic:percentile=nan", "percentile is nan; it must be 0 to 100"),
        ("small-to-big:parts=1", "parts is 1; it must be 2 or more"),
        ("sentence-window:sentences=0", "sentences is 0; it must be 1 or more"),
    ],
)
def test_unknown_names_and_options_are_refused_with_what_there_is(name, said):
    with pytest.raises(ConfigurationError, match=said):
        Chunker(strategy=name)


def test_a_strategy_of_ones_own():
    class EveryWord:
        version = "every-word"

        def cuts(self, material):
            from m3rag.chunking import Cut

            return (Cut(i, i + 1) for i in range(len(material.units)))

    chunker = Chunker(strategy=EveryWord())
    assert [c.text for c in chunker.split(Document("d", "one two", "h"), ENCODER)] == ["one", "two"]
    assert chunker.version == "chunks-2/every-word/256+32"
