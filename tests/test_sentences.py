from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.reading import read
from m3rag.sentences import sentence_spans


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
        [
            "Es gibt z. B. Enten und u. a. Gänse.",
            "D. h. Vögel.",
            "Er kam v. Chr. nach dem 2. Weltkrieg.",
            "Band 2.",
            "Gut.",
        ],
        ["Dr.-Ing. Ute Meyer und J.-P. Martin.", "Bl.a. Ankor och m.in. Kaczki.", "W EE. UU. np. Gdynia."],
        ["Τι είναι;", "Είναι πάπια.", "Ο Παπάς; ναι."],
        ["То есть, т. е. Москва.", "Это вектор а.", "Потом."],
        ["M. Dupont habite ici.", "« Viens ! »", "Il est parti."],
        ["Он жил на ул. Ленина и т.д. Потом уехал.", "Всё."],
        ["¿Dónde está la Sra. García?", "¡Aquí!"],
        ["See p. 12 for details.", "Voir p. 12 et n. 3 du texte.", "See vol. 2, pt. 3, p. 4.", "Next."],
        ["Er wiegt 3 t.", "20 Leute trugen ihn.", "Bold is 12 pt.", "3 sizes exist."],
        ["Москва, ул. Ленина, д. 5, корп. 2, кв. 7.", "См. гл. 3, с. 15.", "Потом."],
        ["He ran 20 m.", "12 people saw it.", "It has 12 pt.", "See p. 3.", "Then go.", "2. Second item."],
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
    assert sentences("It was plan B. 2. Next item.") == ["It was plan B. 2. Next item."]
    assert sentences("1. Smith P. 2. Doe A.") == ["1. Smith P. 2. Doe A."]


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


def test_many_stops_in_one_long_block() -> None:
    """Minutes, if each stop copied what is behind it."""
    text = "Ab. " * 50_000 + "X" * 20_000_000
    spans = sentence_spans(text)
    assert spans[:2] == [(0, 3), (4, 7)]
    assert (len(spans), spans[-1]) == (50_001, (200_000, len(text)))


@pytest.mark.parametrize("blanks", [" ", " \n", " " * 100])
def test_what_follows_a_stop_is_found_behind_any_number_of_blanks(blanks: str) -> None:
    assert sentences(f"It was so.{blanks}Then it rained.") == ["It was so.", "Then it rained."]
    assert len(sentences(f"Am 3.{blanks}Oktober war es so, approx.{blanks}two.")) == 1


@pytest.mark.parametrize("language", ["de", "es", "ru", "ar", "zh"])
def test_translations_have_as_many_sentences_and_answers_lie_within_one(shared_data: Path, language: str) -> None:
    def paragraphs(of: str) -> dict[str, str]:
        lines = (shared_data / "retrieval" / "xquad" / "mono" / of / "corpus.jsonl").read_text("utf-8").splitlines()
        return {record["_id"]: record["text"] for record in map(json.loads, lines)}

    texts = paragraphs(language)
    count, english = (sum(len(sentence_spans(t)) for t in of.values()) for of in (texts, paragraphs("en")))
    assert 0.95 * english < count < 1.12 * english
    whole = 0
    questions = (shared_data / "rag" / "xquad" / f"{language}.jsonl").read_text("utf-8").splitlines()
    for question in map(json.loads, questions):
        text, answer = texts[question["gold_ids"][0]], question["answers"][0]
        at = text.index(answer)
        whole += any(start <= at and at + len(answer) <= end for start, end in sentence_spans(text))
    assert whole > 0.99 * len(questions)


def test_a_declaration_in_many_languages_has_sentences_of_a_readers_length(shared_data: Path) -> None:
    files = sorted((shared_data / "files" / "html-udhr").glob("*.html"))
    assert len(files) >= 10
    for path in files:
        text = read(path).text
        spans = sentence_spans(text)
        assert 95 <= len(spans) <= 300, path
        assert max(end - start for start, end in spans) <= 800, path
        assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())
