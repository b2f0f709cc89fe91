import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ReadError
from m3rag.reading.json import read_json, read_json_lines


def text_of(value):
    return read_json(json.dumps(value).encode()).text


def test_values_are_lines_with_their_path():
    value = {"a": {"b": 1, "c": [1, "two", None, True]}, "d": None, "e": "", "f": "one\ntwo", "g": [[1], [2]]}
    assert text_of(value) == "a.b: 1\na.c: 1, two, true\nf: one\ntwo\ng[0]: 1\ng[1]: 2"


def test_objects_of_a_list_are_paragraphs_with_their_place():
    value = {"items": [{"id": 1, "tags": ["x", "y"]}, {"id": 2}]}
    assert text_of(value) == "items[0].id: 1\nitems[0].tags: x, y\n\nitems[1].id: 2"


def test_records_begin_with_their_title():
    content = read_json(json.dumps([{"id": 1, "title": "One"}, {"id": 2}, {"id": 3, "name": "Three"}]).encode())
    assert content.text == "title: One\nid: 1\n\nid: 2\n\nname: Three\nid: 3"
    assert [(h.text, content.text[h.start : h.end]) for h in content.headings] == [
        ("One", "title: One"),
        ("Three", "name: Three"),
    ]


def test_a_heading_is_the_whole_line_whatever_the_title():
    content = read_json(b'[{"title": "t"}, {"title": "e"}]')
    assert [content.text[h.start : h.end] for h in content.headings] == ["title: t", "title: e"]


def test_numbers_are_as_written_and_keys_may_stand_twice():
    source = b'{"a": 1.10, "a": NaN, "b": -Infinity, "c": ' + b"9" * 5000 + b"}"
    assert read_json(source).text == "a: 1.10\na: NaN\nb: -Infinity\nc: " + "9" * 5000


def test_plain_values():
    assert read_json(b'"words"').text == "words"
    assert read_json(b"[1, 2]").text == "1\n\n2"
    assert read_json(b"{}").text == ""


def test_json_lines_leave_out_what_is_none():
    content = read_json_lines('{"text": "a\u2028b"}\n\n{"text": "c"}\nnot json\n'.encode())
    assert content.text == "text: a\u2028b\n\ntext: c"
    assert content.warnings == ("1 lines are no JSON and left out: 4",)


def test_the_one_in_a_file_of_the_other():
    assert read_json(b'{"a": 1}\n{"a": 2}\n').text == "a: 1\n\na: 2"
    assert read_json_lines(b'[\n{"a": 1},\n{"a": 2}\n]').text == "a: 1\n\na: 2"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a" 1}', r"line 1, column 6.*mend it there"),
        (b"{", "line 1"),
        (b"[" * 100_000, "deeper than 200"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "deeper than 200"),
    ],
)
def test_what_is_no_json_is_refused_by_place(data, said):
    for read in (read_json, read_json_lines):
        with pytest.raises(ReadError, match=said):
            read(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(VALUES))
def test_no_text_is_lost_and_headings_are_whole_lines(values):
    content = read_json(json.dumps(values).encode())
    squeezed = "".join(content.text.split())

    def check(value):
        if isinstance(value, str):
            assert "".join(value.split()) in squeezed
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner)

    check(values)
    for heading in content.headings:
        line = content.text[heading.start : heading.end]
        assert line.endswith(heading.text)
        assert "\n" not in line
