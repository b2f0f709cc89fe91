import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ReadError
from m3rag.reading.csv import read_csv


def text_of(source):
    return read_csv(source.encode()).text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_are_records_whatever_the_delimiter(delimiter):
    rows = [["name", "city", "price"], ["Ann", "Rome; Italy, EU", "1.5"], ["Bob", "", "2"]]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    assert text_of(file.getvalue()) == (
        "name | city | price\nname: Ann | city: Rome; Italy, EU | price: 1.5\nname: Bob | price: 2"
    )


@pytest.mark.parametrize(
    "source",
    [
        "1,2\n3,4",
        "2020-01-01,5\n2020-01-02,6",
        "a,a\nb,c",
        "red,big\nblue,big\nred,small",
        "$1,200 %\n5,6",
    ],
)
def test_values_are_no_header(source):
    assert ": " not in text_of(source)


def test_a_title_above_the_header_and_cells_beyond_it():
    assert text_of("Prices of 2024\n\nname,price\ntea,3\nmilk,1,fresh\nbeans,2\n") == (
        "Prices of 2024\nname | price\nname: tea | price: 3\nname: milk | price: 1 | fresh\nname: beans | price: 2"
    )


def test_an_unnamed_first_column_of_statistics():
    assert text_of(",mean,max\nx,1,2\ny,3,4") == "| mean | max\nx | mean: 1 | max: 2\ny | mean: 3 | max: 4"


def test_quoted_line_ends_and_quotes():
    assert (
        text_of('id,text\r\n1,"one\r\ntwo ""three"""\r\n2,x\r\n')
        == 'id | text\nid: 1 | text: one two "three"\nid: 2 | text: x'
    )


def test_a_quote_that_is_never_closed_costs_no_rows():
    content = read_csv(('id,text\n1,"open\n' + "2,words and words\n" * 20_000).encode())
    assert content.text.count("words and words") == 20_000
    assert "never closed" in content.warnings[0]


def test_one_column_and_prose_stay_lines():
    assert text_of("one\ntwo, and three\nfour\n") == "one\ntwo, and three\nfour"


def test_other_encodings():
    assert read_csv("name;Größe\nx;ä".encode("utf-16")).text == "name | Größe\nname: x | Größe: ä"
    western = "Straße;Größe\n" + "Königsallee in Düsseldorf;fünf Räume über der Bäckerei\n" * 9
    assert "Größe: fünf Räume über der Bäckerei" in read_csv(western.encode("cp1252")).text
    with pytest.raises(ReadError, match="binary"):
        read_csv(bytes(range(256)) * 10)


def test_a_large_table_is_whole():
    rows = "\n".join(f"{n},value {n}" for n in range(200_000))
    text = text_of(f"key,value\n{rows}\n")
    assert text.count("\n") == 200_000
    assert text.endswith("key: 199999 | value: value 199999")


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters='"|,;\ufeff'))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1))
def test_no_word_of_a_table_is_lost(rows):
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    text = text_of(file.getvalue()).split()
    assert all("".join(cell.split()) in "".join(text) for row in rows for cell in row)


def test_the_line_that_tells_excel_the_delimiter_is_no_row():
    assert text_of("sep=;\r\nname;price\r\nAnn, B;1,5\r\n") == "name | price\nname: Ann, B | price: 1,5"
