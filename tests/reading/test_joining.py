from m3rag.reading.joining import Part, join
from m3rag.types import Heading


def test_spans_are_exact_and_empty_parts_cost_nothing():
    parts = [
        Part(""),
        Part("one", (Heading("one", 1, 0, 3),)),
        Part(""),
        Part("a two", (Heading("two", 2, 2, 5),)),
        Part(""),
    ]
    joined = join(parts)
    assert joined.text == "one\n\na two"
    assert [joined.text[start:end] for start, end in joined.spans] == [part.text for part in parts]
    assert [joined.text[h.start : h.end] for h in joined.headings] == ["one", "two"]
    assert [start for start, _ in joined.spans] == [0, 0, 3, 5, 10]


def test_nothing_joins_to_nothing():
    assert join([]).text == ""
