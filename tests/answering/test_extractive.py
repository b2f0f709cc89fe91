from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from m3rag.answering.citations import find_marks
from m3rag.answering.extractive import BACKGROUND, DEFAULT_THRESHOLD, Extractive
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.answering.quotable import LONGEST, window
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.scoring import max_similarities
from m3rag.sentences import sentence_spans
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Answer, Chunk, Hit

ENCODER = HashEncoder(colbert_dim=64)
DUCKS = "Ducks have waterproof feathers. A duck lays about twelve eggs.[3] Ponds freeze in winter."
CONTENTS = """- How many eggs lays a duck?
- How long lives it?

## How many eggs lays a duck?

---

About twelve, in spring.
## How long lives it?
For ten years.
"""
CATS = "Cats sleep all day. A cat has nine lives, they say."


def chunks_of(*texts: str, document_id: str = "d.txt", headings: tuple[str, ...] = ()) -> list[Chunk]:
    starts = np.cumsum([50, *(len(text) + 1 for text in texts)])
    return [
        Chunk(f"{document_id}#{i}", document_id, text, int(a), int(a) + len(text), i + 1, headings)
        for i, (text, a) in enumerate(zip(texts, starts, strict=False))
    ]


def stored(*documents: Sequence[Chunk]) -> tuple[MemoryStore, list[Hit]]:
    store = MemoryStore(ENCODER.info)
    for chunks in documents:
        record = DocumentRecord(chunks[0].document_id, "title", "v1", len(chunks))
        store.put_document(record, [(chunks, ENCODER.encode_documents([c.encoded_text for c in chunks]))])
    return store, [Hit(chunk, 1.0) for chunks in documents for chunk in chunks]


def test_the_sentence_that_answers_is_quoted_word_for_word() -> None:
    store, hits = stored(chunks_of(CATS, DUCKS))
    answer = Extractive(ENCODER, store).answer("How many eggs lays a duck?", hits)
    (citation,) = answer.citations
    assert answer.answered
    assert answer.text == "A duck lays about twelve eggs. [1]"
    assert citation.quote == "A duck lays about twelve eggs.[3]"
    assert (citation.number, citation.document_id, citation.page, citation.chunk_id) == (1, "d.txt", 2, "d.txt#1")
    chunk = hits[1].chunk
    assert citation.quote == chunk.text[citation.start - chunk.start : citation.end - chunk.start]
    assert answer.hits == tuple(hits)


def test_code_that_is_not_closed_in_a_sentence_leaves_the_mark_outside() -> None:
    quote = "```python\nducks = eggs(12) # a duck lays [3]"
    store, hits = stored(chunks_of(f"{quote}\n\nsleep()\n```"))
    answer = Extractive(ENCODER, store, threshold=-1, max_sentences=1).answer("ducks eggs lays python?", hits)
    assert answer.citations[0].quote == quote
    assert answer.text == "python ducks = eggs(12) # a duck lays [1]"
    assert [mark.passages for mark in find_marks(answer.text, 1)] == [(0,)]


@pytest.mark.parametrize(
    ("quote", "shown"),
    [
        ("A duck lays twelve eggs[1].", "A duck lays twelve eggs(1)."),
        (
            "A duck lays `twelve` eggs[^1] (blue)【1】, `eggs[1]`.",
            "A duck lays `twelve` eggs(^1) (blue)(1), `eggs(1)`.",
        ),
        ("A duck lays twelve eggs [001].", "A duck lays twelve eggs (001)."),
        ("A duck lays eggs[[9]1] twelve.", "A duck lays eggs(1) twelve."),
        ("A duck lays eggs[0] and eggs[7] in [2024].", "A duck lays eggs[0] and eggs[7] in [2024]."),
    ],
)
def test_a_number_of_the_source_names_no_citation(quote: str, shown: str) -> None:
    store, hits = stored(chunks_of(quote))
    answer = Extractive(ENCODER, store, threshold=-1).answer("How many eggs lays a duck?", hits)
    assert answer.text == f"{shown} [1]"
    assert answer.citations[0].quote == quote


@pytest.mark.parametrize(
    "quote", ["```` A duck lays twelve eggs.", "``` A duck lays twelve eggs. ```", "`` A duck lays twelve eggs."]
)
def test_a_fence_does_not_take_in_the_answer(quote: str) -> None:
    store, hits = stored(chunks_of(quote))
    answer = Extractive(ENCODER, store, threshold=-1, max_sentences=1).answer("How many eggs lays a duck?", hits)
    assert answer.text == "A duck lays twelve eggs. [1]"


def test_the_whole_sentence_is_quoted_where_a_chunk_begins_within_it() -> None:
    text = "Cats sleep. A duck lays about twelve\neggs. Eggs of ducks are blue."
    first, second = Chunk("d#0", "d", text[:42], 0, 42), Chunk("d#1", "d", text[19:], 19, len(text))
    store, hits = stored([first, second])
    answer = Extractive(ENCODER, store, max_sentences=1).answer("about twelve eggs lays?", hits)
    assert [c.quote for c in answer.citations] == ["A duck lays about twelve\neggs."]
    assert answer.text == "A duck lays about twelve eggs. [1]"


@pytest.mark.parametrize("headings", [(), ("Animals", "Ducks & co")])
def test_support_is_what_the_best_sentence_has_beyond_the_others(headings: tuple[str, ...]) -> None:
    store, hits = stored(chunks_of(DUCKS, headings=headings))
    words = "how many eggs lays duck"
    support = Extractive(ENCODER, store, threshold=-1).answer(words + "?", hits).support
    query, passage = (ENCODER.encode_documents([t]).colbert_of(0) for t in (words, hits[0].chunk.encoded_text))
    sentences = [ENCODER.encode_documents([DUCKS[a:b]]).colbert_of(0) for a, b in sentence_spans(DUCKS)]
    around = max_similarities(query, passage).mean() / 2
    evidence = [(max_similarities(query, sentence).mean() + around) / 1.5 for sentence in sentences]
    background = (sum(evidence) + 3 * BACKGROUND) / (len(evidence) + 3)
    assert support == pytest.approx(max(evidence) - background, abs=1e-3)


def test_a_question_the_documents_do_not_answer_is_refused() -> None:
    store, hits = stored(chunks_of(CATS, DUCKS))
    answer = Extractive(ENCODER, store, threshold=0.9).answer("Who invented the telephone exchange?", hits)
    assert (answer.text, answer.citations, answer.answered) == (NO_ANSWER_TEXT, (), False)
    assert answer.hits == tuple(hits)
    assert answer.support is not None
    assert answer.support < 0.9


def test_no_hits_and_no_words_are_refused_without_support() -> None:
    store, hits = stored(chunks_of("... --- ..."))
    for found in ([], hits):
        answer = Extractive(ENCODER, store).answer("Why?", found)
        assert (answer.answered, answer.support) == (False, None)


def test_what_was_removed_since_it_was_found_is_not_quoted() -> None:
    store, hits = stored(chunks_of(DUCKS, document_id="ducks"), chunks_of("A hen lays two eggs.", document_id="hens"))
    store.delete_documents(["ducks"])
    answer = Extractive(ENCODER, store, threshold=-1).answer("How many eggs lays a duck?", hits)
    assert [citation.document_id for citation in answer.citations] == ["hens"]
    store.delete_documents(["hens"])
    assert not Extractive(ENCODER, store, threshold=-1).answer("How many eggs lays a duck?", hits).answered


def test_a_second_sentence_is_quoted_where_it_is_as_good() -> None:
    store, hits = stored(chunks_of("Eggs of ducks are blue. Eggs of hens are brown.", CATS))
    answer = Extractive(ENCODER, store).answer("eggs of", hits)
    assert answer.text == "Eggs of ducks are blue. [1] Eggs of hens are brown. [2]"
    assert [c.number for c in answer.citations] == [1, 2]
    one = Extractive(ENCODER, store, max_sentences=1).answer("eggs of", hits)
    assert one.text == "Eggs of ducks are blue. [1]"


def test_sentences_of_overlapping_chunks_and_of_copies_are_quoted_once() -> None:
    text = "Cats sleep. A duck lays about twelve eggs."
    whole = Chunk("a#0", "a", text, 0, len(text))
    tail = Chunk("a#1", "a", text[12:], 12, len(text))
    copy = chunks_of("A duck lays  about\ntwelve EGGS.", document_id="b")
    store, hits = stored([whole, tail], copy)
    answer = Extractive(ENCODER, store, max_sentences=3).answer("a duck lays about twelve eggs", hits)
    assert len(answer.citations) == 1


def test_the_order_of_equals_is_that_of_the_hits() -> None:
    store, hits = stored(chunks_of("Red ducks swim.", document_id="a"), chunks_of("Blue ducks swim.", document_id="b"))
    answerer = Extractive(ENCODER, store, max_sentences=1)
    assert answerer.answer("ducks swim", hits).citations[0].document_id == "a"
    assert answerer.answer("ducks swim", hits[::-1]).citations[0].document_id == "b"


def test_an_overlong_sentence_is_cut_around_what_matched() -> None:
    text = (
        "filler words go on " * 60 + "and a duck lays about twelve eggs in spring " + "while more filler follows " * 60
    )
    store, hits = stored(chunks_of(text))
    answer = Extractive(ENCODER, store).answer("How many eggs lays a duck?", hits)
    (citation,) = answer.citations
    chunk = hits[0].chunk
    assert answer.text == f"… {citation.quote} … [1]"
    assert "a duck lays about twelve eggs" in citation.quote
    assert len(citation.quote) <= LONGEST
    assert citation.quote == chunk.text[citation.start - chunk.start : citation.end - chunk.start]
    assert f" {citation.quote} " in text


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("How many eggs lays a duck?\n\nAbout twelve, in spring. Cats sleep.", ()),
        ("»How many eggs lays a duck?«\nAbout twelve, in spring.", ()),
        ("**How many eggs lays a duck?!**[3]\n\nAbout twelve, in spring.", ()),
        ("Πόσα αυγά: how many eggs lays a duckλ;\nAbout twelve, in spring.", ()),
        ("# How many eggs\n## lays a duck { #duck }\n\nAbout twelve, in spring.", ()),
        ("How  many EGGS\nlays a duck\n\nAbout twelve, in spring.", ("Animals", "How many eggs lays a duck")),
        (CONTENTS, ()),
    ],
    ids=["question", "in quotation marks", "bold", "Greek", "Markdown", "of the document", "contents"],
)
def test_what_stands_below_a_heading_or_a_question_is_quoted_in_its_place(text: str, headings: tuple[str, ...]) -> None:
    store, hits = stored(chunks_of(text, headings=headings), chunks_of(CATS, document_id="cats"))
    answer = Extractive(ENCODER, store, max_sentences=1).answer("How many eggs lays a duck?", hits)
    assert answer.text == "About twelve, in spring. [1]"


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ('She wrote "How many eggs lays a duck?" It was read in 1962.', 'She wrote "How many eggs lays a duck?"'),
        ("Did you know that a duck lays many eggs? Tourists bring hats.", "Did you know that a duck lays many eggs?"),
        ("# A duck lays many eggs\n# Shipping is free\nThank you.", "# A duck lays many eggs"),
        ("# A duck lays many eggs\n![a photo](x.png)\nThank you.", "# A duck lays many eggs"),
        ("# A duck lays many eggs\n\n| Day | Hours |\n", "# A duck lays many eggs"),
        ("Nothing.\n```sh\n# duck lays many eggs how\n```\nFurther reading is below.", "# duck lays many eggs how"),
        ("# A duck lays many eggs", "# A duck lays many eggs"),
    ],
    ids=["quotation", "rhetorical", "slide", "picture", "table", "code", "alone"],
)
def test_what_does_not_answer_is_not_quoted_in_the_place_of_what_does(text: str, quote: str) -> None:
    store, hits = stored(chunks_of(text), chunks_of(CATS, document_id="cats"))
    (citation,) = Extractive(ENCODER, store, max_sentences=1).answer("How many eggs lays a duck?", hits).citations
    assert citation.quote.strip("`").strip() == quote


def test_a_question_with_nothing_below_it_is_quoted_only_where_there_is_nothing_else() -> None:
    alone = chunks_of("# How many eggs lays a duck?")
    store, hits = stored(alone)
    answer = Extractive(ENCODER, store, threshold=-2).answer("How many eggs lays a duck?", hits)
    assert answer.text == "# How many eggs lays a duck? [1]"
    store, hits = stored(alone, chunks_of("A duck lays eggs.", document_id="ducks"))
    answer = Extractive(ENCODER, store, threshold=-2).answer("How many eggs lays a duck?", hits)
    assert answer.text == "A duck lays eggs. [1]"


def test_a_window_without_blanks_is_cut_between_tokens() -> None:
    text = "字" * 2000
    tokens = np.stack([np.arange(0, 2000, 2), np.arange(2, 2002, 2)], axis=1)
    similarities = np.zeros((2, 1000), np.float32)
    similarities[[0, 1], [600, 650]] = 1
    start, end = window(text, (0, 2000), similarities, tokens)
    assert start % 2 == end % 2 == 0
    assert start <= 1200
    assert end >= 1302
    assert LONGEST - 4 <= end - start <= LONGEST


def test_a_window_stays_inside_its_sentence_and_prefers_most_matches() -> None:
    text = "word " * 400
    tokens = np.array([(i, i + 4) for i in range(0, 2000, 5)])
    similarities = np.zeros((3, 400), np.float32)
    similarities[[0, 1, 2], [2, 390, 399]] = [0.9, 0.6, 0.6]
    start, end = window(text, (0, 1999), similarities, tokens)
    assert start <= 1950
    assert end == 1999
    similarities[0, 2] = 2
    assert window(text, (0, 1999), similarities, tokens)[0] == 0


def test_the_stream_gives_the_text_and_then_the_answer() -> None:
    store, hits = stored(chunks_of(CATS, DUCKS))
    answerer = Extractive(ENCODER, store)
    text, answer = answerer.stream("How many eggs lays a duck?", hits)
    assert answer == answerer.answer("How many eggs lays a duck?", hits)
    assert text == answer.text


def test_a_refusal_streams_no_text() -> None:
    store, hits = stored(chunks_of(CATS, DUCKS))
    (answer,) = Extractive(ENCODER, store, threshold=0.9).stream("Who invented the telephone exchange?", hits)
    assert isinstance(answer, Answer)
    assert not answer.answered


def test_the_page_of_a_quote_can_be_looked_up() -> None:
    store, hits = stored(chunks_of(DUCKS))
    answerer = Extractive(ENCODER, store, page_of=lambda document_id, offset: offset)
    (citation,) = answerer.answer("How many eggs lays a duck?", hits).citations
    assert citation.page == citation.start


def test_punctuation_of_the_question_does_not_count() -> None:
    class Punctuated(HashEncoder):
        """Gives ? a vector of its own, as a real tokenizer does."""

        def encode_documents(self, texts: Sequence[str]) -> object:
            return super().encode_documents([text.replace("?", " qqq") for text in texts])

        def token_spans(self, text: str) -> np.ndarray:
            spans = super().word_spans(text.replace("?", "q"))
            return spans

    encoder = Punctuated(colbert_dim=64)
    store, hits = stored(chunks_of("A duck swims."))
    supports = [Extractive(encoder, store).answer(q, hits).support for q in ("a duck swims ?", "a duck swims")]
    assert supports == [pytest.approx(1.0 - (1.0 + 3 * BACKGROUND) / 4, abs=1e-3)] * 2


def test_vectors_that_do_not_fit_the_text_name_the_remedy() -> None:
    store, hits = stored(chunks_of(DUCKS))
    changed = [replace(hits[0], chunk=replace(hits[0].chunk, text="Other words."))]
    with pytest.raises(IndexMismatchError, match=r"'d\.txt#0' .* rebuild"):
        Extractive(ENCODER, store).answer("eggs", changed)


def test_a_model_without_token_vectors_is_refused_with_the_remedy() -> None:
    encoder = OpenAIEncoder("m1", base_url="http://127.0.0.1:1/v1", dimensions=8)
    with encoder, pytest.raises(ConfigurationError) as caught:
        Extractive(encoder, MemoryStore(encoder.info))
    assert str(caught.value) == (
        "an answer in quoted sentences needs the leg colbert, which the model m1 does not give: have a language model "
        "write it (llm=OpenAIChat(...), or llm.model in the settings), or an M3 model such as BAAI/bge-m3"
    )


def test_arguments_are_checked_and_the_default_threshold_is_one() -> None:
    store, hits = stored(chunks_of(DUCKS))
    assert Extractive(ENCODER, store).threshold == DEFAULT_THRESHOLD
    with pytest.raises(ConfigurationError, match="max_sentences"):
        Extractive(ENCODER, store, max_sentences=0)
    with pytest.raises(InputError, match="blank"):
        Extractive(ENCODER, store).answer("  ", hits)
