import pytest

from m3rag.reading.pdf_running import Line, running_lines


def left(pages):
    """The text of the lines that are left out, page by page."""
    return [[lines[n].text for n in sorted(out)] for lines, out in zip(pages, running_lines(pages), strict=True)]


def page(number, *, head="The Annals of Tea", foot="{}", body="Some body text of page {}"):
    return [Line(head, 0.95), Line(body.format(number * number), 0.6), Line(foot.format(number), 0.05)]


def test_a_header_stays_where_it_stands_first_and_page_numbers_go():
    assert left([page(n) for n in range(1, 6)]) == [["1"], *([["The Annals of Tea", str(n)] for n in range(2, 6)])]


def test_a_header_that_the_text_says_anyway_goes_everywhere():
    pages = [[Line("The Annals of Tea, a title", 0.8)], *[page(n) for n in range(2, 7)]]
    assert all("The Annals of Tea" in out for out in left(pages)[1:])


def test_three_pages_are_too_few():
    assert left([page(n) for n in range(1, 4)]) == [[], [], []]


def test_numbers_must_count_with_the_pages():
    assert left([page(n, head=f"Table {n * n}", foot="7 8") for n in range(1, 9)]) == [[]] * 8
    pages = [page(n, head=f"{n}\tOn Tea", foot=f"Page {n + 10} of 99") for n in range(1, 6)]
    assert left(pages)[3] == ["4\tOn Tea", "Page 14 of 99"]


@pytest.mark.parametrize(
    "heading",
    [
        "Lesson {}",
        "Invoice 10{:02}",
        "Article {}",
        "Q{} 2024",
        "{} May 2024",
        "{}. Woche",
        "Purchase order number {}",
        "Order 45000123{}",
        "Contract of the company number 20240000{}",
    ],
)
def test_headings_and_dates_that_count_with_the_pages_stay(heading):
    assert left([page(n, head=heading.format(n), foot="") for n in range(1, 6)]) == [[]] * 5
    pages = [page(n, head=heading.format(n), foot="{}") for n in range(1, 6)]
    assert left(pages) == [[str(n)] for n in range(1, 6)]


def test_what_a_line_says_of_a_number_is_not_the_pages():
    assert left([page(n, head=f"Invoice no.:\t{n}", foot=f"0{n}.05.2024") for n in range(1, 6)]) == [[]] * 5
    pages = [[Line("Invoice no.:", 0.95), Line(f"10{n}", 0.952), Line(str(n), 0.05)] for n in range(1, 6)]
    assert left(pages) == [[str(n)] for n in range(1, 6)]


@pytest.mark.parametrize(
    "head", ["Chapter 2\t{}", "{}   Chapter 2", "On Tea | {}", "On Tea, p. {}", "{} of the annals of green tea of 1900"]
)
def test_running_heads_go_with_the_number_of_the_page(head):
    pages = [page(n, head=head.format(n), foot="") for n in range(1, 6)]
    assert left(pages) == [[], *([head.format(n)] for n in range(2, 6))]


@pytest.mark.parametrize(
    "line", ["Confidential - {}", "ACME GmbH – {}", "{} - ACME", "Rev. B / {}", "Report 2024 — {}"]
)
def test_a_dash_or_slash_between_blanks_sets_the_number_of_the_page_apart(line):
    for height in (0.95, 0.05):
        pages = [[Line(line.format(n), height), Line(f"Text {n * n}", 0.5)] for n in range(1, 6)]
        assert left(pages) == [[], *([line.format(n)] for n in range(2, 6))]


@pytest.mark.parametrize("heading", ["Invoice - 10{:02}", "{} / 05 / 2024 ACME", "Order no.: - {}"])
def test_a_dash_or_slash_in_a_date_or_before_any_other_number_does_not(heading):
    assert left([page(n, head=heading.format(n), foot="") for n in range(1, 6)]) == [[]] * 5


@pytest.mark.parametrize("foot", ["Annual Report {}", "ISO 9001 {}", "{} ACME Ltd", "ACME Ltd 9001 {}", "A-{}"])
def test_a_foot_goes_with_the_number_of_the_page_where_a_heading_stays(foot):
    pages = [page(n, head="", foot=foot) for n in range(1, 6)]
    assert left(pages) == [[], *([foot.format(n)] for n in range(2, 6))]
    assert left([page(n, head=foot.format(n), foot="") for n in range(1, 6)]) == [[]] * 5


@pytest.mark.parametrize(
    "foot", ["Plate {}", "Annual Report 10{}", "Purchase order no. {}", "Our order #{}", "{} de mayo de 2024", "{} May"]
)
def test_captions_and_other_numbers_at_the_foot_stay(foot):
    assert left([page(n, head="", foot=foot) for n in range(1, 6)]) == [[]] * 5
    above = [[*page(n), Line(f"Supplementary figure {n}", 0.1)] for n in range(1, 6)]
    assert all(not any("figure" in line for line in lines) for lines in left(above))


@pytest.mark.parametrize(
    "foot",
    ["Page {} of 6", "{}/6", "– {} –", "{} | 6", "S. {}", "стр. {}", "第 {} 页 共 6 页", "{}ページ", "- {} av 6 -"],
)
def test_page_numbers_go_with_their_words_on_the_last_page_too(foot):
    pages = [page(n, head="", foot=foot.format(n)) for n in range(1, 7)]
    assert left(pages) == [[foot.format(n)] for n in range(1, 7)]


def test_a_line_that_a_bookmark_of_its_page_names_is_no_running_head():
    pages = [page(n, head=f"The Annals of Green Tea, lesson {n}", foot="") for n in range(5)]
    assert [len(running) for running in running_lines(pages)] == [0, 1, 1, 1, 1]
    titles = [(n, f"The annals of green tea,  lesson {n}") for n in range(5)]
    assert running_lines(pages, titles=titles) == [frozenset()] * 5


def test_roman_numerals_count_too():
    numerals = ["ii", "iii", "iv", "v", "vi"]
    assert [out[-1] for out in left([page(n, foot=numeral) for n, numeral in enumerate(numerals)])] == numerals


def test_the_body_is_never_left_out():
    for height in (0.84, 0.5, 0.2):
        pages = [[Line("The same words", height), Line(str(n), height - 0.04)] for n in range(9)]
        assert left(pages) == [[]] * 9
    wandering = [[Line("The same words", 0.86 + n / 60)] for n in range(9)]
    assert left(wandering) == [[]] * 9
    below_a_heading = [[Line(f"Chapter {'abcdefghi'[n]}", 0.95), Line("The same words", 0.9)] for n in range(9)]
    assert left(below_a_heading) == [[]] * 9


def test_left_and_right_pages():
    heads = ["Tea and Milk", "J. Leaf"]
    assert [len(out) for out in left([page(n, head=heads[n % 2]) for n in range(10)])] == [1, 1, *[2] * 8]


def test_no_pages():
    assert running_lines([]) == []
    assert running_lines([[], []]) == [frozenset(), frozenset()]
