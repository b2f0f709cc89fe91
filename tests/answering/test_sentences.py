from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.answering.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[a:b] for a, b in sentence_spans(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["One two.", "Three four!", "Five?", "Six"],
        ["Dr. Smith met J. K. Rowling, e.g. in the U.S. Army.", "It was 3.14 metres!", '"Really?" he asked.', "(Yes.)"],
        ["See Smith et al. (2020) and Fig. 3.", "No. 5 lives.", "He said no.", "Then he went."],
        ["Version 2.0.1 is at example.com/a.b now.", "Wait... what?!", "End.[12]", "Next."],
        ["Das gilt z.B. für Öl bzw. Gas.", "Am 3. Oktober 1990 war es so.", "„Gut.“", "Danach kam er."],
        ["M. Dupont habite ici.", "« Viens ! »", "Il est parti."],
        ["Он жил на ул. Ленина и т.д. Потом уехал.", "Всё."],
        ["¿Dónde está la Sra. García?", "¡Aquí!"],
    ],
)
def test_sentences_of_languages_with_blanks(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["他说。", "“好的。”", "圆周率是3．14吗？", "对"],
        ["東京は首都です。", "「本当？」", "はい！"],
        ["यह घर है।", "वह पेड़ है॥", "ठीक"],
        ["هل هذا بيت؟", "نعم۔", "لا"],
        ["ខ្ញុំទៅផ្ទះ។", "គាត់នៅទីនេះ។"],
        ["ဤသည်မှာအိမ်ဖြစ်သည်။", "ကောင်းပါသည်။"],
    ],
)
def test_sentences_that_end_without_a_blank(expected: list[str]) -> None:
    assert sentences("".join(expected)) == expected


def test_thai_is_cut_at_blanks_between_long_clauses_only() -> None:
    first, second = "สวัสดีครับผมชื่อสมชายและผมมาจากเมืองไทย", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"
    assert sentences(f"{first} {second}") == [first, second]
    assert sentences("ผมมา จากไทย") == ["ผมมา จากไทย"]
    assert sentences(f"{first} 25 {second}") == [f"{first} 25 {second}"]


def test_blocks_end_sentences_and_wrapped_lines_do_not() -> None:
    text = (
        "# Title\nText goes\non here\n\nNew block\n- item one. More\n- item two\n2. Second\n| a | b |\n| c | d |\nrest"
    )
    assert sentences(text) == [
        "# Title",
        "Text goes\non here",
        "New block",
        "- item one.",
        "More",
        "- item two",
        "2. Second",
        "| a | b |",
        "| c | d |",
        "rest",
    ]


def test_numbers_of_a_list_stay_with_their_items() -> None:
    assert sentences("1. Foo bar. 2. Baz.") == ["1. Foo bar.", "2. Baz."]


ALPHABET = "ab A.!?…。！।؟ \n\t\"'”“)[]1 2#-|กข\u17d4\u200b\u00a0\u2029\f"


@given(st.one_of(st.text(), st.text(alphabet=ALPHABET)))
def test_spans_are_trimmed_in_order_and_cover_everything(text: str) -> None:
    spans = sentence_spans(text)
    ends = [0, *(end for _, end in spans)]
    assert all(previous <= start < end for previous, (start, end) in zip(ends, spans, strict=False))
    assert all(text[a:b] == text[a:b].strip() for a, b in spans)
    assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())


@pytest.mark.timeout(10)
@pytest.mark.parametrize("unit", [" ", "\n", ".", "a", "a. ", "[1]", '"', "# ", "|", "\n ", "ก ", ".[1]", "1. "])
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    text = unit * (100_000 // len(unit)) + "x"
    assert sentence_spans(text)[-1][1] == len(text)
