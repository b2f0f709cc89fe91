from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from m3rag.answering.citations import cite
from m3rag.answering.prompt import SENTINEL, is_refusal
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.answering.thinking import without_thinking
from m3rag.langchain.chain_reply import ReplyChecker, cited
from m3rag.types import Chunk

PASSAGES = [
    Chunk("a#1", "a.pdf", "Trains run on rails. Ducks swim on ponds.", 100, 141, page=4),
    Chunk("b#1", "b.md", "Boats swim on the water too.", 0, 28),
]
PARTS = [
    "[1]",
    "[2]",
    "[9]",
    "[1, 2]",
    "[1-2]",
    "[[9]1]",
    "【1】",
    "[2024]",
    "a[0]",
    "`x[9]`",
    "```\ny[9]\n```",
    "`",
    "``",
]
PARTS += [
    "<think>",
    "</think>",
    " ",
    "\n",
    "\n\n",
    ".",
    "Ducks swim",
    "[",
    "]",
    "1",
    "NOT_IN_",
    "NOT",
    "\\_",
    "n",
    "é",
    "鴨",
    "[^1]",
    "- ",
    "pond[9]",
    "max_size[9]",
    "Boats ",
    "f(x)",
    "鴨。é",
]


def run(pieces: list[str]) -> tuple[list[str], ReplyChecker]:
    checker = ReplyChecker(PASSAGES)
    return [*[checker.feed(piece) for piece in pieces], checker.finish()], checker


def cut(text: str, at: list[int]) -> list[str]:
    places = [0, *sorted(min(place, len(text)) for place in at), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), st.lists(st.integers(0, 60), max_size=12))
@example("See [[9]8] and a [9]. `[9] b", list(range(40)))
@example("Ducks ```[9]``` [1", list(range(40)))
@example("Ducks swim [9] on `a b [9] c d` ponds here[9]` [9] a b", list(range(60)))
def test_however_a_reply_is_cut_the_same_is_shown_and_never_taken_back(text: str, at: list[int]) -> None:
    shown, checker = run(cut(text, at))
    whole, other = run([text])
    assert "".join(shown) == "".join(whole) == checker.shown
    assert checker.checked().text == other.checked().text
    said = without_thinking(text)
    words = any(map(str.isalnum, cite(said, PASSAGES)[0]))
    assert checker.checked().answered == (not is_refusal(said) and (words or not said.strip()))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([p for p in PARTS if "`" not in p]), max_size=10).map("".join))
def test_the_marks_that_stay_are_those_that_cite_keeps(text: str) -> None:
    """`cite` numbers anew and looks at lines together; the words and which passages are cited are the same."""
    text = without_thinking(text.replace("\n", " "))
    _, checker = run([text])
    expected, citations = cite(text, PASSAGES)
    assume(any(map(str.isalnum, expected)))
    reply = checker.checked()
    again, citations_again = cite(reply.text, PASSAGES)
    assert (again, citations_again) == (expected, citations)
    assert {c["extras"]["chunk_id"] for c in reply.citations} == {c.chunk_id for c in citations}


def test_a_mark_is_held_back_until_it_is_whole() -> None:
    shown, checker = run(["Ducks swim ", "[", "1", "]", " and [", "9", "]", "."])
    assert shown == ["Ducks swim", "", "", " [1]", " and", "", "", ".", ""]
    assert checker.shown == "Ducks swim [1] and."


def test_marks_in_a_block_of_code_behind_a_stray_backtick_are_code() -> None:
    _, checker = run(["Use ` as a quote. ```sh\nx[1] [1-2] [9]\n``` Ducks swim [1]."])
    assert "x[1] [1-2] [9]" in checker.shown
    (citation,) = checker.checked().citations
    assert citation["end_index"] == len(checker.shown)


@pytest.mark.parametrize("reply", ["[9]", "[9].", "**[9]**\n- [9]", "."])
def test_a_reply_without_a_word_is_a_refusal(reply: str) -> None:
    shown, checker = run(list(reply))
    assert "".join(shown) == checker.shown == NO_ANSWER_TEXT
    assert not checker.checked().answered


def test_the_sign_of_refusal_is_never_shown() -> None:
    shown, checker = run(["`", "NOT_", "IN\\_DOC", "UMENTS", "`"])
    assert shown == ["", "", "", "", "", NO_ANSWER_TEXT]
    assert (checker.checked().answered, checker.checked().citations) == (False, ())


def test_behind_an_apology_the_refusal_is_said_in_words() -> None:
    shown, checker = run(["I am sorry: ", *SENTINEL, ". Ask [1] again."])
    assert "".join(shown) == f"I am sorry:\n\n{NO_ANSWER_TEXT}" == checker.checked().text
    assert not checker.checked().answered


def test_thinking_is_not_shown_nor_searched_for_marks_and_refusals() -> None:
    shown, checker = run(["<thi", f"nk>Is it [2]? {SENTINEL}", "?</think>", "\n\nDucks", " swim [1]."])
    assert shown == ["", "", "", "Ducks", " swim [1].", ""]
    assert [c["extras"]["number"] for c in checker.checked().citations] == [1]
    assert "".join(run(["<think>Is it"])[0]) == ""
    assert "".join(run(["<thi"])[0]) == "<thi"


def test_a_word_that_begins_like_the_sign_is_shown() -> None:
    assert "".join(run(list("NOT_INCLUDED, not in documents"))[0]) == "NOT_INCLUDED, not in documents"


@pytest.mark.parametrize("text", ["Ducks swim on ponds [1].", "Ducks swim on ponds.[1]", "Ducks swim on ponds. [1]"])
def test_a_citation_says_what_it_supports_and_where_the_quote_stands(text: str) -> None:
    answer = f"Boats swim on water [2]. {text} The end."
    boats, ducks = cited(answer, PASSAGES)
    assert answer[ducks["start_index"] : ducks["end_index"]].strip(" .") == text.strip(" .")
    assert answer[boats["start_index"] : boats["end_index"]] == "Boats swim on water [2]."
    assert ducks["type"] == "citation"
    assert ducks["cited_text"] == "Ducks swim on ponds."
    assert ducks["title"] == "a.pdf"
    assert ducks["extras"] == {
        "number": 1,
        "document_id": "a.pdf",
        "page": 4,
        "start": 121,
        "end": 141,
        "chunk_id": "a#1",
    }
    assert "page" not in boats["extras"]


def test_the_page_of_a_quote_can_be_looked_up() -> None:
    (citation,) = cited("Ducks swim on ponds [1].", PASSAGES, page_of=lambda document, at: 5 if at >= 121 else 4)
    assert citation["extras"]["page"] == 5


def test_several_sources_of_one_mark_have_a_citation_each() -> None:
    assert [c["extras"]["number"] for c in cited("They swim [1][2].", PASSAGES)] == [1, 2]
    assert cited("They swim.", PASSAGES) == ()
    assert cited("[1]", PASSAGES)[0]["start_index"] == 0


def test_a_long_reply_costs_no_more_a_piece_than_a_short_one() -> None:
    """What was checked is not looked at again: the text kept for it is the line under way."""
    checker = ReplyChecker(PASSAGES)
    for _ in range(5_000):
        checker.feed("Ducks swim [1].\n")
        assert len(checker._line) < 20
    assert checker.shown.count("[1]") == 5_000


@pytest.mark.parametrize("sentence", ["Ducks swim [1] and eat. ", "鴨[1]吃草，游泳。"])
def test_neither_does_a_long_line(sentence: str) -> None:
    checker = ReplyChecker(PASSAGES)
    for sign in sentence * 300:
        checker.feed(sign)
        assert len(checker._line) < 30
    assert checker.shown.count("[1]") == 300


def test_a_long_line_without_words_is_not_checked_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    checker, checked = ReplyChecker(PASSAGES), 0
    check = ReplyChecker._checked

    def counted(self: ReplyChecker, line: str) -> str:
        nonlocal checked
        checked += len(line)
        return check(self, line)

    monkeypatch.setattr(ReplyChecker, "_checked", counted)
    shown = "".join(checker.feed(sign) for sign in "[1]" * 2_000)
    assert shown.count("[1]") > 1_500, "what comes is not held back to the end"
    assert shown + checker.finish() == "[1]" * 2_000
    assert checked < 50 * 6_000


def test_brackets_that_are_no_marks_take_no_time() -> None:
    """A regular expression that tried every way to part the blanks between them took days."""
    shown, checker = run([f"The tensor is {'[ ' * 40}1.5", " at 0."])
    assert "".join(shown) == checker.shown == f"The tensor is {'[ ' * 40}1.5 at 0."
