from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.answering.thinking import ThinkingFilter, without_thinking


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Paris.", "Paris."),
        ("", ""),
        (" \n", ""),
        ("<think>Which one?</think>Paris.", "Paris."),
        ("\n<think>\nWhich one?\n</think>\n\n    Paris.\n", "Paris.\n"),
        ("<think></think><think>again</think> Paris.", "Paris."),
        ("<think>The mark <think> is nothing, </thin neither</think>Paris.", "Paris."),
        ("<think>and no end", ""),
        ("<think>and </think", ""),
        ("<thi", "<thi"),
        ("<thin>ice", "<thin>ice"),
        ("Write <think>so</think>.", "Write <think>so</think>."),
        ("Ja.</think>", "Ja.</think>"),
    ],
)
def test_thinking_before_the_answer_is_left_out(reply: str, answer: str) -> None:
    assert without_thinking(reply) == answer


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "think", "/", ">", " ", "\n", "a", "é"]), max_size=12),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_however_the_reply_is_cut_the_answer_is_the_same(parts: list[str], cuts: list[int]) -> None:
    reply = "".join(parts)
    taken = ThinkingFilter()
    pieces = "".join(taken.feed(piece) for piece in _cut(reply, cuts)) + taken.finish()
    assert pieces == without_thinking(reply)


def _cut(text: str, cuts: list[int]) -> Iterator[str]:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    return (text[start:end] for start, end in pairwise(places))
