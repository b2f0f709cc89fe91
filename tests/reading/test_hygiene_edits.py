import re

from hypothesis import given
from hypothesis import strategies as st

from m3rag.reading.hygiene_edits import Edited, replace_spans, substitute

TEXTS = st.text("ab-xﬁ\n", max_size=40)


def edited(source):
    text = substitute(source, re.compile("-+"), lambda found: "")
    text = substitute(text, re.compile("ﬁ"), lambda found: "fi")
    return substitute(text, re.compile("a+"), lambda found: "A")


@given(TEXTS)
def test_each_character_leads_back_to_the_one_it_came_from(source):
    text = edited(source)
    assert text.text == re.sub("a+", "A", source.replace("-", "").replace("ﬁ", "fi"))
    for at, character in enumerate(text.text):
        came_from = source[text.back(at)]
        assert came_from == character or came_from + character in ("ﬁf", "ﬁi", "aA")
    order = [text.back(at) for at in range(len(text.text))]
    assert order == sorted(order)


@given(TEXTS)
def test_boundaries_go_forward_in_order_and_past_what_was_kept(source):
    text = edited(source)
    moved = [text.forward(at) for at in range(len(source) + 1)]
    assert moved == sorted(moved)
    assert (moved[0], moved[-1]) == (0, len(text.text))
    for at, character in enumerate(source):
        if character in "bx\n":
            assert text.text[moved[at] : moved[at + 1]] == character


def test_what_is_not_edited_has_no_passes():
    assert substitute("abc", re.compile("x"), lambda found: "") == Edited.of("abc")
    assert replace_spans(Edited.of("abc"), []).back(2) == 2


def test_a_boundary_within_a_replaced_span_goes_to_its_start():
    text = replace_spans(Edited.of("one two three"), [(4, 7, "2")])
    assert (text.text, text.source) == ("one 2 three", "one two three")
    assert [text.forward(at) for at in (4, 5, 6, 7, 8)] == [4, 4, 4, 5, 6]
