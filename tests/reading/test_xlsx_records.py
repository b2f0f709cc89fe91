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
    named = ("Name: Ada | Town: London | Work: notes", "Name: Alan | Town: Bletchley | Work: codes")
    rows = [tuple(value.split(": ")[1] for value in line.split(" | ")) for line in named]
    assert of(("Name", "Town", "Work"), rows[0], (), rows[1]) == ["Name | Town | Work", named[0], "", named[1]]


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


def styled(*rows):
    return list(lines([Cell(text, words=not text[0].isdigit(), style=style) for text, style in row] for row in rows))


def test_the_first_line_of_a_form_is_no_header():
    form = (("Name", "Ann"), ("City", "Rome"), ("Salary", 50_000), ("Start", "2020"))
    assert of(*form) == ["Name | Ann", "City | Rome", "Salary | 50000", "Start | 2020"]
    assert of(("Item", "Price"), ("Pen", 5), ("Ink", 7))[1] == "Item: Pen | Price: 5"
    bold = styled((("Term", "b"), ("Meaning", "b")), (("dog", ""), ("Hund", "")))
    assert bold == ["Term | Meaning", "Term: dog | Meaning: Hund"]


def test_years_may_be_names_of_columns():
    assert of(("Region", 2019, 2020), ("North", 5, 7)) == ["Region | 2019 | 2020", "Region: North | 2019: 5 | 2020: 7"]
    assert of((None, 2020, 2019), ("North", 5, 7))[1] == "North | 2020: 5 | 2019: 7"
    assert of(("Ann", 1961, 2001), ("Bob", 1958, 2003)) == ["Ann | 1961 | 2001", "Bob | 1958 | 2003"]


def test_a_table_of_two_columns_of_words_has_a_header():
    glossary = [("Term", "Meaning"), *((f"word {n}", f"sense {n}") for n in range(40))]
    assert of(*glossary)[1] == "Term: word 0 | Meaning: sense 0"
    phones = of(("Name", "Phone"), ("Ann", "+49 30 1"), ("Bob", 4930), ("Cy", "+49 30 2"))
    assert phones[1:3] == ["Name: Ann | Phone: +49 30 1", "Name: Bob | Phone: 4930"]
    assert of(("Question", "Answer"), ("Why?", "So."))[1] == "Question: Why? | Answer: So."
    assert of(("Item", "Price"), ("Pen", 5), ("Ink", "free"), ("Nib", 2))[1] == "Item: Pen | Price: 5"
    long = of(("Setting", "Value"), *((f"s{n}", n if n % 2 else f"v{n}") for n in range(20)))
    assert long[1] == "Setting: s0 | Value: v0"


def test_what_tells_a_form_of_words():
    for form in (
        (("Name:", "Ann"), ("City:", "Rome"), ("Job", "cook")),
        (("E-mail", "ann@x.org"), ("City", "Rome")),
        (("Phone", "+49 30 12"), ("City", "Rome")),
    ):
        assert of(*form) == [" | ".join(line) for line in form]
