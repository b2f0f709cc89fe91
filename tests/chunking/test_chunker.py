import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.chunking import CONTEXT_TOKENS, Chunker, document_version
from m3rag.errors import ConfigurationError, InputError
from m3rag.types import Document, Heading, Page


def spans(pattern):
    compiled = re.compile(pattern)

    def word_spans(text):
        return np.array([m.span() for m in compiled.finditer(text)], np.int64).reshape(-1, 2)

    return word_spans


WORDS = spans(r"\w+|[^\w\s]+")
PIECES = spans(r"[^\W\d_]{1,3}|\d|[^\w\s]")  # sub-words of three letters, `_` is dropped as by a normaliser


def document(text, *, headings=(), pages=(), metadata=None):
    found = tuple(
        Heading(title.lstrip("# "), title.count("#"), text.index(title), text.index(title) + len(title))
        for title in headings
    )
    return Document("d.md", text, "hash", headings=found, pages=pages, metadata=metadata or {})


def tokens_of(chunk, all_spans):
    return int(((all_spans[:, 0] >= chunk.start) & (all_spans[:, 0] < chunk.end)).sum())


def check_laws(doc, chunks, chunker, word_spans):
    text, all_spans = doc.text, word_spans(doc.text)
    covered = np.zeros(len(text), bool)
    for number, chunk in enumerate(chunks):
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip()
        assert chunk.text
        assert tokens_of(chunk, all_spans) <= chunker.chunk_tokens
        assert chunk.id.endswith(f"-{number}")
        covered[chunk.start : chunk.end] = True
    assert all(done or c.isspace() for c, done in zip(text, covered, strict=True))
    for one, two in pairwise(chunks):
        assert one.start < two.start
        assert one.end < two.end
        shared = (all_spans[:, 0] >= two.start) & (all_spans[:, 0] < one.end)
        assert shared.sum() <= chunker.overlap_tokens


TEXTS = st.text(
    st.characters(codec=None)
    | st.sampled_from(" \n\t.!?。、_-\u3000\u200b")
    | st.sampled_from("abc XYZ éß ΑΩ 日本語ไทย กำ ខ្មែរ हिन्दी العربية"),
    max_size=400,
)


@pytest.mark.parametrize("word_spans", [WORDS, PIECES], ids=["words", "pieces"])
@settings(deadline=None, max_examples=200)
@given(
    text=TEXTS, chunk=st.integers(1, 40), overlap=st.integers(0, 15), marks=st.lists(st.integers(0, 400), max_size=6)
)
def test_the_span_law_holds_for_any_text(word_spans, text, chunk, overlap, marks):
    marks = sorted({m for m in marks if m < len(text)})
    headings = tuple(Heading(f"h{m}", m % 4 + 1, m, m + 1) for m in marks)
    doc = Document("d", text, "hash", headings=headings)
    chunker = Chunker(chunk_tokens=chunk, overlap_tokens=min(overlap, (chunk - 1) // 2))
    check_laws(doc, chunker.split(doc, word_spans), chunker, word_spans)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text("abcdefghijk", min_size=1, max_size=12), max_size=150), st.integers(8, 40))
def test_words_are_never_cut(words, chunk):
    doc = document(" ".join(words))
    for part in Chunker(chunk_tokens=chunk, overlap_tokens=3).split(doc, PIECES):
        assert part.start == 0 or doc.text[part.start - 1] == " "
        assert part.end == len(doc.text) or doc.text[part.end] == " "


def test_a_word_longer_than_a_chunk_is_cut_at_tokens_and_its_neighbours_are_not():
    chunks = Chunker(chunk_tokens=4, overlap_tokens=0).split(document("before " + "x" * 30 + " behind"), PIECES)
    assert [c.text for c in chunks] == ["before xxxxxx", "x" * 12, "x" * 12, "behind"]


def test_scripts_without_spaces_are_cut_between_tokens_but_not_their_latin_words():
    text = "私は昨日PostgreSQLを使った。" * 6
    chunks = Chunker(chunk_tokens=12, overlap_tokens=0).split(document(text), spans(r"[^\W\d_a-zA-Z]|[a-zA-Z]{1,3}|。"))
    assert "".join(c.text for c in chunks) == text
    assert all(c.text.count("PostgreSQL") == len(re.findall("[a-zA-Z]+", c.text)) for c in chunks)
    assert all(not c.text.startswith("。") for c in chunks)


@pytest.mark.parametrize("stop", [". ", "! ", "? ", "。", "！", "？", "؟ ", "। ", ".) ", '." '])
def test_chunks_end_at_a_sentence_when_one_is_near(stop):
    body = "私 " * 7 if stop in "。！？" else "Word " * 7
    sentence = body.strip() + stop
    chunks = Chunker(chunk_tokens=20, overlap_tokens=0).split(document((sentence * 10).strip()), spans(r"\w+"))
    assert len(chunks) > 1
    assert all(c.text.endswith(stop.strip()) for c in chunks)


def test_an_abbreviation_is_no_end():
    text = "Such tools, e.g. this one and many that follow it, go on here"
    first = Chunker(chunk_tokens=5, overlap_tokens=0).split(document(text), spans(r"\w+"))[0]
    assert first.text == "Such tools, e.g. this"


def test_paragraphs_are_stronger_than_sentences_and_sentences_than_lines():
    chunker = Chunker(chunk_tokens=12, overlap_tokens=0)
    head = "one two three four five six seven eight "
    rest = " and more words that follow after it to fill the next part"
    assert chunker.split(document(head + "A.\n\nB. C\nD" + rest), spans(r"\w+"))[0].text.endswith("A.")
    assert chunker.split(document(head + "A! B\nC D" + rest), spans(r"\w+"))[0].text.endswith("A!")
    assert chunker.split(document(head + "A B\nC D" + rest), spans(r"\w+"))[0].text.endswith("B")


def test_a_scrap_is_shared_out():
    lengths = [len(c.text.split()) for c in Chunker(overlap_tokens=0).split(document("word " * 260), WORDS)]
    assert len(lengths) == 2
    assert min(lengths) > 90


def sections(*lengths_and_titles):
    parts, titles = [], []
    for title, length in lengths_and_titles:
        parts.append(f"{title}\n" + " ".join(f"w{i}" for i in range(length)))
        titles.append(title)
    return document("\n\n".join(parts), headings=titles)


def test_a_section_starts_a_chunk_and_gives_its_path():
    doc = sections(("# Guide", 80), ("## Install", 300), ("## Use", 90), ("# Other", 70))
    chunks = Chunker().split(doc, WORDS)
    assert [c.headings for c in chunks] == [
        ("Guide",),
        ("Guide", "Install"),
        ("Guide", "Install"),
        ("Guide", "Use"),
        ("Other",),
    ]
    assert [c.text.split("\n")[0] for c in chunks if c.text.startswith("#")] == [
        "# Guide",
        "## Install",
        "## Use",
        "# Other",
    ]


def test_small_sections_are_joined_with_what_follows_on_their_level_or_below():
    doc = sections(("# Guide", 0), ("## A", 20), ("## B", 20), ("## C", 100), ("## D", 10), ("# Next", 100))
    chunks = Chunker().split(doc, WORDS)
    assert [re.findall("^#+ (.*)$", c.text, re.MULTILINE) for c in chunks] == [
        ["Guide", "A", "B", "C"],
        ["D"],
        ["Next"],
    ]
    assert [c.headings for c in chunks] == [("Guide",), ("Guide", "D"), ("Next",)]


def test_headings_of_the_same_name_do_not_pass_for_one():
    doc = sections(("# One", 70), ("## Notes x", 10), ("# Two", 70))
    assert [c.headings for c in Chunker().split(doc, WORDS)] == [("One",), ("One", "Notes x"), ("Two",)]


def test_context_stays_short():
    long = "# " + " ".join(["long"] * 40)
    doc = sections((long, 80), ("## " + " ".join(["outer"] * 20), 80), ("### " + " ".join(["inner"] * 15), 80))
    for chunk in Chunker().split(doc, WORDS):
        assert len(WORDS(chunk.context)) <= CONTEXT_TOKENS
    assert Chunker().split(doc, WORDS)[-1].headings == (" ".join(["inner"] * 15),)


def test_overlap_repeats_whole_sentences_within_a_section_only():
    text = "# A\n\n" + " ".join(f"Sentence number {i} stands here." for i in range(40)) + "\n\n# B\n\n" + "tail " * 80
    doc = document(text, headings=["# A", "# B"])
    chunks = Chunker(chunk_tokens=64, overlap_tokens=16).split(doc, WORDS)
    of_a = [c for c in chunks if c.headings == ("A",)]
    of_b = [c for c in chunks if c.headings == ("B",)]
    assert len(of_a) > 2
    for one, two in pairwise(of_a):
        shared = doc.text[two.start : one.end]
        assert shared.startswith("Sentence number")
        assert len(WORDS(shared)) <= 16
    assert of_b[0].start >= of_a[-1].end
    assert of_b[1].start < of_b[0].end


def test_without_a_sentence_the_overlap_starts_at_a_word():
    chunks = Chunker(chunk_tokens=20, overlap_tokens=5).split(document("alphabet " * 50), WORDS)
    assert all(c.text.startswith("alphabet") for c in chunks)
    assert chunks[0].end - chunks[1].start == len("alphabet " * 5) - 1


def test_the_page_is_that_of_the_first_character():
    text = "page one\n\npage three goes on"
    pages = (Page(1, 0, 8), Page(2, 10, 10), Page(3, 10, len(text)), Page(4, len(text), len(text)))
    chunks = Chunker(chunk_tokens=2, overlap_tokens=0).split(document(text, pages=pages), WORDS)
    assert [(c.text, c.page) for c in chunks] == [("page one", 1), ("page three", 3), ("goes on", 3)]
    assert Chunker().split(document(text), WORDS)[0].page is None


@pytest.mark.parametrize("text", ["", " \n\t\u3000"])
def test_nothing_gives_nothing(text):
    assert Chunker().split(document(text), WORDS) == []


def test_text_without_tokens_is_covered_all_the_same():
    chunks = Chunker(chunk_tokens=2, overlap_tokens=0).split(document("___ ab __ cd __ ef ___"), PIECES)
    assert [c.text for c in chunks] == ["___ ab __ cd __", "ef ___"]


def test_tokens_with_an_empty_span_count():
    def marked(text):
        """Two tokens a word: a mark without characters, in the blank before it or at its start, and the word."""
        rows = []
        for number, match in enumerate(re.finditer(r"\S+", text)):
            mark = max(match.start() - number % 2, 0)
            rows += [(mark, mark), match.span()]
        return np.array(rows, np.int64)

    chunks = Chunker(chunk_tokens=20, overlap_tokens=0).split(document("word " * 1000), marked)
    assert max(len(c.text.split()) for c in chunks) == 10


def test_an_encoder_may_be_given():
    class Encoder:
        def word_spans(self, text):
            return WORDS(text)

    doc = document("one two three", metadata={"lang": "en"})
    assert Chunker().split(doc, Encoder()) == Chunker().split(doc, WORDS)
    assert Chunker().split(doc, WORDS)[0].metadata == {"lang": "en"}


def test_ids_change_with_content_and_settings_only():
    doc = document("one two three")
    version = document_version(doc, Chunker())
    assert version == document_version(document("other"), Chunker())  # the content hash stands for the text
    assert version != document_version(doc, Chunker(chunk_tokens=128))
    assert version != document_version(Document("d.md", "one two three", "other hash"), Chunker())
    assert Chunker().split(doc, WORDS)[0].id == f"d.md#{version[:12]}-0"
    assert Chunker().version == "chunks-2/structure/256+32"
    assert repr(Chunker(chunk_tokens=np.int64(256))) == repr(Chunker())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1, got 0"),
        ({"overlap_tokens": -1}, "overlap_tokens must be at least 0, got -1"),
        ({"chunk_tokens": 256.0}, "chunk_tokens must be a whole number, got 256.0"),
        ({"chunk_tokens": float("nan")}, "chunk_tokens must be a whole number, got nan"),
        ({"overlap_tokens": None}, "overlap_tokens must be a whole number, got None"),
        ({"strategy": None}, "strategy is a NoneType, must be a Strategy or the name of one: structure"),
        ({"chunk_tokens": 64, "overlap_tokens": 32}, "less than half of chunk_tokens .64.; lower it to 8"),
    ],
)
def test_impossible_settings_are_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        Chunker(**options)


@pytest.mark.parametrize("bad", [[[0, 99]], [[3, 1]], [[0, 2], [1, 3]], [[-1, 2]], [0, 1]])
def test_spans_that_do_not_fit_are_refused(bad):
    with pytest.raises(InputError, match=r"d\.md are not in order"):
        Chunker().split(document("some text"), lambda text: np.array(bad))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["Many words make one sentence here. ", "数" * 30 + "。", "!" * 50, "_ ", "x\n\n"])
def test_time_is_linear(unit):
    text = unit * (1_000_000 // len(unit))
    found = PIECES(text)
    assert Chunker().split(document(text), lambda _: found)[-1].end == len(text.rstrip())


@pytest.mark.timeout(60)
def test_many_headings_take_linear_time():
    text = "# Title\n\ntext\n\n" * 40_000
    at = [m.start() for m in re.finditer("#", text)]
    doc = Document("d", text, "hash", headings=tuple(Heading("Title", 1 + i % 6, a, a + 7) for i, a in enumerate(at)))
    found = WORDS(text)
    assert Chunker().split(doc, lambda _: found)[-1].end == len(text.rstrip())
