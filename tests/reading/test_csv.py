import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ReadError
from m3rag.reading import parse
from m3rag.reading.csv import read_csv, read_tsv


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
    for rows in (3, 20_000):
        content = read_csv(('id,text\n1,"a, b"\n1,"open\n' + '2,"words, words"\n' * rows + '3,""\n').encode())
        assert content.text.count("id: 2 | text: words, words") == rows
        assert 'id: 1 | text: a, b\nid: 1 | text: "open\n' in content.text
        assert content.warnings == (
            "line 3: a quotation mark is never closed, or a value has over 131,072 characters: read as text",
        )


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


def test_values_too_long_for_quotes_take_linear_time():
    lines = ("y" * 99 + "\n") * 1_400
    begun = time.perf_counter()
    content = read_csv(
        ("a,b\n" + ('1,"' + lines) * 100 + '1,"' + "z" * 140_000 + "\n" + '2,5" pipe\n2,"6" pipe\n').encode()
    )
    assert time.perf_counter() - begun < 20
    assert content.warnings[0].startswith("lines 2, 1402, 2802 and 98 more")
    assert content.text.count("y\n") == 140_000
    assert content.text.endswith('z\na: 2 | b: 5" pipe\na: 2 | b: 6 pipe')


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("Ann Meier;3,5\nBob Miller;4,0\n", "Ann Meier | 3,5\nBob Miller | 4,0"),
        ("1,5;2,5\n3,5;4,5\n", "1,5 | 2,5\n3,5 | 4,5"),
        (
            "Day;Sum, net\n1.2.;5,10\n2.2.;8,00\n",
            "Day | Sum, net\nDay: 1.2. | Sum, net: 5,10\nDay: 2.2. | Sum, net: 8,00",
        ),
        ("a\tb, c\n1\t2, 3\n4\t5, 6\n", "a | b, c\na: 1 | b, c: 2, 3\na: 4 | b, c: 5, 6"),
        ("x,y;z\n1,2\n3,4\n", "x | y;z\nx: 1 | y;z: 2\nx: 3 | y;z: 4"),
    ],
)
def test_a_comma_is_more_often_in_a_value_than_other_delimiters(source, rows):
    assert text_of(source) == rows


def test_the_suffix_says_that_tabs_delimit():
    source = b"Meier, Ann\tBern, BE\nKunz, Bob\tBasel, BS\nMeier, Ann\tChur, GR\n"
    assert parse(source, name="a.tsv").text == "Meier, Ann | Bern, BE\nKunz, Bob | Basel, BS\nMeier, Ann | Chur, GR"
    assert read_tsv(b"a;b\n1;2\n").text == "a | b\na: 1 | b: 2"


def test_years_may_be_names_of_columns():
    assert text_of("Region,2019,2020\nNorth,5,7\n") == "Region | 2019 | 2020\nRegion: North | 2019: 5 | 2020: 7"
    assert ": " not in text_of("Ann,1961,2001\nBob,1958,2003\n")
    assert ": " not in text_of("Widget,1990,2050\nGadget,150,99\n")


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("id,x,t\n1,2,1;2\n2,4,2;3\n", "id | x | t\nid: 1 | x: 2 | t: 1;2\nid: 2 | x: 4 | t: 2;3"),
        ("id,2019,2020\n1,100,200;a\n", "id | 2019 | 2020\nid: 1 | 2019: 100 | 2020: 200;a"),
        ("1,2,3,1|2\n4,5,6,2|3\n", "1 | 2 | 3 | 1|2\n4 | 5 | 6 | 2|3"),
        ("a,b\n1,2;3\n4,5;6\n", "a | b\na: 1 | b: 2;3\na: 4 | b: 5;6"),
        ("Name;Preis\nApfel;1,50\nBirne;2,00\n", "Name | Preis\nName: Apfel | Preis: 1,50\nName: Birne | Preis: 2,00"),
        ("Meier, Ann;3,5\nKunz, Bob;4,0\n", "Meier, Ann | 3,5\nKunz, Bob | 4,0"),
        ("x;1,5-2,5\ny;von 1,5 bis 3 kg\nSumme 7,5\n", "x | 1,5-2,5\ny | von 1,5 bis 3 kg\nSumme 7,5"),
        ("a, net;b, net\n1,5;2,5\n3,5;4,5\n", "a, net | b, net\na, net: 1,5 | b, net: 2,5\na, net: 3,5 | b, net: 4,5"),
    ],
)  # fmt: skip
def test_commas_of_numbers_and_commas_between_numbers(source, rows):
    assert text_of(source) == rows


@pytest.mark.parametrize("row", ['x"\t"""y\n', 'x"\t"""y\n\nz\n', '"a" \t"""y\n'])
def test_rows_that_run_to_the_end_take_linear_time(row):
    for read, source in ((read_tsv, row), (read_csv, row.replace("\t", ","))):
        begun = time.perf_counter()
        content = read((source * 50_000).encode())
        assert time.perf_counter() - begun < 20
        assert content.text.count("y") == 50_000


def test_a_value_of_several_lines_beside_an_irregular_mark():
    content = read_csv(b'name, note\n"A" , "one\ntwo" \n"B" , "three"\n"C" , "four\n"D" , "five"\n')
    assert content.text == (
        'name | note\nname: A | note: one two\nname: B | note: three\nname: "C" | note: "four\nname: D | note: five'
    )
    assert content.warnings[0].startswith("line 5: ")
    content = read_csv(b'a,b,c\n1,"5" screen","one\ntwo"\n2,"6" screen","three"\n')
    assert content.text.startswith('a | b | c\na: 1 | b: 5 screen" | c: one two\na: 2')
    assert not content.warnings
