from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.answering.citations import best_quote, cite, without_marks
from m3rag.types import Chunk

CAPITALS = "Paris is the capital of France. Berlin is the capital of Germany. It rains in autumn."
RIVERS = "The Rhine flows north. The Danube flows east to the Black Sea."
OSAKA = "东京是日本的首都。大阪是第二大城市。"


def chunk(text: str, *, id: str = "c", document_id: str = "d", start: int = 0, page: int | None = None) -> Chunk:
    return Chunk(id=id, document_id=document_id, text=text, start=start, end=start + len(text), page=page)


PASSAGES = [
    chunk(CAPITALS, id="c1", document_id="capitals.pdf", start=100, page=3),
    chunk(RIVERS, id="c2", document_id="rivers.txt", start=7),
    chunk(OSAKA, id="c3", document_id="日本.md"),
]


def test_each_mark_gets_the_sentence_that_supports_its_claim() -> None:
    text, citations = cite("The Danube ends in the Black Sea [2]. Germany's capital is Berlin.[1]", PASSAGES)
    assert text == "The Danube ends in the Black Sea [1]. Germany's capital is Berlin.[2]"
    danube, berlin = citations
    assert (danube.number, danube.document_id, danube.chunk_id, danube.page) == (1, "rivers.txt", "c2", None)
    assert danube.quote == "The Danube flows east to the Black Sea."
    assert (berlin.number, berlin.document_id, berlin.page) == (2, "capitals.pdf", 3)
    assert berlin.quote == "Berlin is the capital of Germany."
    assert (berlin.start, berlin.end) == (132, 165)


def test_a_claim_that_takes_two_sentences_quotes_both() -> None:
    _, citations = cite("The Rhine flows north, the Danube east [2].", PASSAGES)
    assert citations[0].quote == RIVERS


def test_chinese_is_compared_by_pairs_of_characters() -> None:
    _, citations = cite("日本第二大城市是大阪【3】。", PASSAGES)
    assert citations[0].quote == "大阪是第二大城市。"


def test_an_answer_in_another_language_quotes_the_whole_passage() -> None:
    _, citations = cite("C'est l'automne humide [1].", PASSAGES)
    assert citations[0].quote == CAPITALS


def test_a_passage_quoted_twice_has_a_number_for_each_quote() -> None:
    text, citations = cite("Paris is in France [1]. Berlin is in Germany [1]. France has Paris [1].", PASSAGES)
    assert re.findall(r"\[(\d)\]", text) == ["1", "2", "1"]
    assert [c.chunk_id for c in citations] == ["c1", "c1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Rivers and capitals [2, 1].", "Rivers and capitals [1][2]."),
        ("Rivers and capitals [2][1].", "Rivers and capitals [1][2]."),
        ("All [1-3].", "All [1][2][3]."),
        ("All［1–2］.", "All[1][2]."),
        ("Arabic digits [٢].", "Arabic digits [1]."),
        ("Twice [2][2].", "Twice [1]."),
        ("Footnote [^2].", "Footnote [1]."),
    ],
)
def test_forms_of_marks(given: str, expected: str) -> None:
    assert cite(given, PASSAGES)[0] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Nothing [9].", "Nothing."),
        ("Nothing [9] here [0].", "Nothing here."),
        ("[9] First.", "First."),
        ("Some [1][9] more.", "Some [1] more."),
        ("Some [1, 9].", "Some [1]."),
        ("Nested [[9]8] mark.", "Nested mark."),
        ("首都[7]。", "首都。"),
        ("Capitals[7].", "Capitals."),
        ("Both[7][1], (mostly)[9]", "Both[1], (mostly)"),
        ("In 2024[7] and Süd[8]", "In 2024 and Süd"),
        ("End [4]\nNew", "End\nNew"),
    ],
)
def test_marks_without_a_source_are_dropped_with_their_blank(given: str, expected: str) -> None:
    assert cite(given, PASSAGES)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "a[0] = b",
        "args[0]",
        "self.items[7]",
        "char buf[64] or int8[16]",
        "max_size[7]",
        "In [2024] it was",
        "use `a[1]`",
        "```\nx = a[1]\n```",
        "f(x)[7]",
        "[x]",
    ],
)
def test_brackets_that_are_no_marks_stay(text: str) -> None:
    assert cite(text, PASSAGES) == (text, ())


def test_a_stray_backtick_before_a_fence_opens_no_code() -> None:
    """The fence does, and what stands in it is code as far as it goes."""
    text, citations = cite("Use ` as a quote. ```sh\nx[1] [9]\n``` Paris is in France [1].", PASSAGES)
    assert text == "Use ` as a quote. ```sh\nx[1] [9]\n``` Paris is in France [1]."
    assert len(citations) == 1


def test_the_page_of_a_quote_can_be_looked_up() -> None:
    def page_of(document_id: str, offset: int) -> int:
        assert document_id == "capitals.pdf"
        return 4 if offset >= 132 else 3

    _, citations = cite("Berlin is the capital of Germany [1].", PASSAGES, page_of=page_of)
    assert citations[0].page == 4


def test_footnotes_of_a_source_are_left_out() -> None:
    assert without_marks("The tower is 330 m high.[3] It is old [12].") == "The tower is 330 m high. It is old."
    assert without_marks("The path is argv[7].") == "The path is argv[7]."


def test_empty_texts_have_a_quote_too() -> None:
    assert best_quote("", CAPITALS) == (0, len(CAPITALS))
    assert best_quote("claim", "") == (0, 0)


MARKED = st.lists(
    st.one_of(
        st.sampled_from(["Paris", "Berlin is the capital", "大阪", " ", ".", " [9]", "\n", "[", "]", "`", "، "]),
        st.lists(st.integers(0, 12), min_size=1, max_size=3).map(lambda n: f" [{', '.join(map(str, n))}]"),
    )
).map("".join)


@given(MARKED)
def test_every_mark_left_has_a_citation_and_every_citation_a_mark(answer: str) -> None:
    text, citations = cite(answer, PASSAGES)
    outside_code = re.sub(r"```.*?(?:```|\Z)|`[^`\n]+`(?!``)", "", text, flags=re.DOTALL)
    marks = [int(n) for n in re.findall(r"(?<![\w)])\[(\d{1,2})\]", outside_code)]
    assert [c.number for c in citations] == list(range(1, len(citations) + 1))
    assert set(marks) <= {c.number for c in citations}
    assert all(f"[{c.number}]" in text for c in citations)
    first_seen = list(dict.fromkeys(int(n) for n in re.findall(r"\[(\d{1,2})\]", outside_code)))
    assert [n for n in first_seen if n <= len(citations)] == sorted(n for n in first_seen if n <= len(citations))


@given(MARKED, st.text(min_size=1), st.integers(0, 1000))
def test_quotes_are_spans_of_the_document(answer: str, passage: str, start: int) -> None:
    document = "x" * start + passage
    _, citations = cite(answer + " [1]", [chunk(passage, start=start)])
    assert all(document[c.start : c.end] == c.quote for c in citations)


@given(st.text())
def test_a_text_without_passages_never_gets_citations(text: str) -> None:
    assert cite(text, [])[1] == ()
