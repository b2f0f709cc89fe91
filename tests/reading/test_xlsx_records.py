from m3rag.reading.xlsx_records import EMPTY, Cell, filled, lines


def row(*values):
    return [Cell(str(v) if v is not None else "", not isinstance(v, (int, float))) for v in values]


def of(*rows):
    return list(lines(row(*values) for values in rows))


def test_rows_under_a_header_are_records():
    assert of(("Name", "Born"), ("Ada", 1815), ("Alan", None)) == ["Name | Born", "Name: Ada | Born: 1815", "Alan"]
    assert of(("Name", None, "Born"), ("Ada", "x", 1815, "beyond")) == [
        "Name |  | Born",
        "Name: Ada | x | Born: 1815 | beyond",
    ]


def test_rows_without_a_header_are_values():
    assert of((1, 2), (3, 4)) == ["1 | 2", "3 | 4"]
    assert of(("same", "same"), ("a", "b")) == ["same | same", "a | b"]
    assert of(("only",), ("words",)) == ["only", "words"]
    assert of() == of((), (None, None)) == []


def test_a_title_may_stand_above_the_header():
    assert of(("Report",), (), ("Name", "Born"), ("Ada", 1815)) == ["Report", "Name | Born", "Name: Ada | Born: 1815"]


def test_a_second_table_has_its_own_header():
    assert of(("Name", "Born"), ("Ada", 1815), (), (), ("City", "People"), ("Bonn", 330)) == [
        "Name | Born", "Name: Ada | Born: 1815", "", "City | People", "City: Bonn | People: 330",
    ]  # fmt: skip


def test_an_empty_row_within_a_table_of_words_does_not_end_its_header():
    assert of(("Name", "Town"), ("Ada", "London"), (), ("Alan", "Bletchley"), ("Grace", "New York")) == [
        "Name | Town", "Name: Ada | Town: London", "", "Name: Alan | Town: Bletchley", "Name: Grace | Town: New York",
    ]  # fmt: skip


def test_merged_values_stand_in_every_row_that_has_others():
    rows = [row("North", 1), row(None, 2), [EMPTY], row(None, 3), row(None, 4)]
    told = list(filled(rows, {1: [(1, 4)]}))
    assert [[cell.text for cell in r] for r in told] == [
        ["North", "1"],
        ["North", "2"],
        [""],
        ["North", "3"],
        ["", "4"],
    ]
    assert rows[1][0] == EMPTY, "the rows given are left as they are"
    short = list(filled([row("a", "b"), row("c")], {1: [(2, 2)]}))
    assert [cell.text for cell in short[1]] == ["c", "b"]
