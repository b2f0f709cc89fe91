"""Answers judged: what is right, what is refused, and what a citation points at."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Literal

import pytest

from m3rag.evaluation.judging import JudgedAnswer, gold_spans, judge, judge_all, summary
from m3rag.evaluation.labelled import Relevant
from m3rag.evaluation.questions import EvalQuestion
from m3rag.store import DocumentRecord
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import Answer, Chunk, Citation

PARTS = ("In 2013 the Duck\npond froze. ", "It had 13 ducks. ", "鸭子在池塘里游泳。")


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """A document of three chunks, the second also part of a chunk that overlaps it."""
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    chunks, at = [], 0
    for i, text in enumerate(PARTS):
        chunks.append(Chunk(f"c{i}", "d", text, at, at + len(text), page=i + 1))
        at += len(text)
    starts = tuple(chunk.start for chunk in chunks)
    record = DocumentRecord(id="d", title="", version="1", chunks=3, page_starts=starts)
    store.put_document(record, [(chunks, encoder.encode_documents(list(PARTS)))])
    return store


WHOLE = Relevant("d")


def question(*answers: str, relevant: Relevant | None = WHOLE, lang: str = "en") -> EvalQuestion:
    return EvalQuestion("q", "How?", () if relevant is None else (relevant,), answers, lang)


def answered(text: str, *spans: tuple[int, int]) -> Answer:
    cited = tuple(
        Citation(n, "d", None, start, end, "".join(PARTS)[start:end], "c0") for n, (start, end) in enumerate(spans, 1)
    )
    return Answer(text=text, citations=cited, hits=(), answered=True)


REFUSED = Answer(text="The documents do not answer this question.", citations=(), hits=(), answered=False)


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        (question("13"), [(36, 38)]),  # not within 2013
        (question("duck pond"), [(12, 21)]),  # another case, and a line break for a blank
        (question("DUCK"), [(12, 16)]),  # not within ducks
        (question("池塘"), [(49, 51)]),
        (question("uc"), []),  # in the midst of a word
        (question("uck"), [(13, 16)]),  # nowhere as a word: then at the end of one, as in compounds
        (question("froz"), [(22, 26)]),  # or at the start
        (question("在池"), [(48, 50)]),
        (question("goose"), []),
        (question("13", relevant=Relevant("d", page=2)), [(36, 38)]),
        (question("13", relevant=Relevant("d", page=1)), []),  # 2013 is another number
        (question("20", relevant=Relevant("d", page=1)), []),
        (question("13", relevant=Relevant("c1")), [(36, 38)]),
        (question("13", "13", " "), [(36, 38)]),
        (question("13", relevant=Relevant("gone")), []),
        (question("13", relevant=None), []),
        (question(), []),
    ],
)
def test_gold_spans(store: MemoryStore, asked: EvalQuestion, spans: list[tuple[int, int]]) -> None:
    assert gold_spans(asked, store) == [("d", *span) for span in spans]


def test_gold_spans_in_scripts_without_spaces() -> None:
    text, encoder = "เป็ดว่ายน้ำในสระน้ำ", HashEncoder()
    store = MemoryStore(encoder.info)
    store.upsert([Chunk("c", "d", text, 0, len(text))], encoder.encode_documents([text]))
    start = text.index("ใน")
    assert gold_spans(question("ใน"), store) == [("d", start, start + 2)]


@pytest.mark.parametrize("gold", ["München", "Mu\u0308nchen", "ＭÜＮＣＨＥＮ"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_gold_spans_in_another_normal_form(form: Literal["NFC", "NFD"], gold: str) -> None:
    text, encoder = unicodedata.normalize(form, "Der Zug nach München."), HashEncoder()
    store = MemoryStore(encoder.info)
    store.upsert([Chunk("c", "d", text, 0, len(text))], encoder.encode_documents([text]))
    assert gold_spans(question(gold), store) == [("d", 13, len(text) - 1)]


def test_an_answer_is_judged_without_its_marks(store: MemoryStore) -> None:
    found = judge(question("13"), answered("It had 13 ducks. [1][2]", (29, 45), (0, 12)), store, seconds=2.0)
    assert (found.text, found.exact_match, found.holds) == ("It had 13 ducks.", 0.0, True)
    assert found.f1 == pytest.approx(2 * 1 / (4 + 1))
    assert (found.citations, found.right_citations, found.seconds) == (2, 1, 2.0)
    assert judge(question("13"), answered("13 [1]", (38, 40)), store).right_citations == 0, "it only touches the span"
    assert judge(question("goose"), answered("13", (29, 45)), store).right_citations is None
    assert judge(question("3"), answered("It had 13 ducks."), store).holds is False, "by words, not by characters"


def test_languages_decide_what_counts_as_a_word(store: MemoryStore) -> None:
    german = question("Teich", lang="de")
    assert judge(german, answered("der Teich"), store).exact_match == 1.0
    assert judge(replace(german, lang="en"), answered("der Teich"), store).exact_match == 0.0
    chinese = judge(question("池塘", lang="zh"), answered("鸭子在池塘里"), store)
    assert (chinese.f1, chinese.holds) == (pytest.approx(2 * 2 / (6 + 2)), True)


def test_refusals(store: MemoryStore) -> None:
    right, wrong = judge(question(), REFUSED, store), judge(question("13"), REFUSED, store)
    assert (right.f1, right.exact_match, right.answerable, right.text) == (1.0, 1.0, False, "")
    assert (wrong.f1, wrong.citations, wrong.right_citations) == (0.0, 0, 0)
    assert judge(question(), answered("13"), store).f1 == 0.0


def one(
    key: str, *, gold: bool, said: bool, cited: tuple[int, int | None] = (0, None), f1: float = 0.0
) -> JudgedAnswer:
    return JudgedAnswer(key, gold, said, "x" if said else "", f1, f1, f1 > 0, *cited, 0.1)


def test_the_figures_by_hand() -> None:
    judged = [
        one("a", gold=True, said=True, cited=(2, 1), f1=0.5),
        one("b", gold=True, said=True, cited=(1, 0), f1=0.25),
        one("c", gold=True, said=False, cited=(0, 0)),
        one("d", gold=True, said=True, cited=(5, None), f1=0.25),
        one("e", gold=False, said=False, f1=1.0),
        one("f", gold=False, said=True),
        one("g", gold=False, said=False, f1=1.0),
    ]
    assert summary(judged) == pytest.approx(
        {
            "questions": 7,
            "answerable": 4,
            "exact_match": 0.25,
            "f1": 0.25,
            "holds": 0.75,
            "f1_all": 3 / 7,
            "refusal_precision": 2 / 3,
            "refusal_recall": 2 / 3,
            "refusal_f1": 2 / 3,
            "citation_precision": 1 / 3,
            "citation_recall": 1 / 3,
        }
    )


def test_nothing_to_take_a_share_of_is_none() -> None:
    assert set(summary([]).values()) == {0, None}
    alone = summary([one("a", gold=True, said=True)])
    assert (alone["refusal_precision"], alone["refusal_recall"], alone["refusal_f1"]) == (None, None, None)
    assert alone["citation_precision"] is None


def test_only_questions_that_say_what_is_right_are_asked(store: MemoryStore) -> None:
    asked: list[str] = []
    steps: list[tuple[int, int]] = []

    def ask(query: str) -> Answer:
        asked.append(query)
        return REFUSED

    questions = [EvalQuestion("a", "A?", (), ()), EvalQuestion("b", "B?", ()), EvalQuestion("c", "C?", (), ("x",))]
    judged = judge_all(ask, questions, store, progress=lambda n, of: steps.append((n, of)))
    assert (asked, [answer.id for answer in judged], steps) == (["A?", "C?"], ["a", "c"], [(1, 2), (2, 2)])
