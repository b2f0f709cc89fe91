import time

import pytest

from m3rag.errors import ReadError
from m3rag.reading import parse
from m3rag.reading.html import read_html

from .files import check, real_files


def text_of(body):
    return read_html(f"<!doctype html><meta charset=utf-8><body>{body}".encode()).text


@pytest.mark.parametrize("entry", real_files(".html"))
def test_real_files(entry):
    document = check(entry)
    assert "className=" not in document.text
    assert all(document.text[h.start : h.end] == h.text for h in document.headings)


def test_blocks_lines_and_inline():
    assert (
        text_of("<p>One <b>bo</b>ld\n word</p><p>Two<br>lines<ul><li>a<li>b</ul>")
        == "One bold word\n\nTwo\nlines\n\na\nb"
    )


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>x</script>",
        "<style>x</style>",
        "<nav>x</nav>",
        "<aside>x</aside>",
        "<header>x</header>",
        "<a class=headerlink href=#x>¶</a>",
        "<math><annotation encoding=tex>x</annotation></math>",
        "<footer>x</footer>",
        "<template>x</template>",
        "<!-- x -->",
        "<p hidden>x",
        "<p aria-hidden='TRUE'>x",
        "<p style='color:red;DISPLAY : none'>x",
        "<p style='visibility:hidden'>x",
        "<p style='font-size:0px'>x",
        "<div hidden><p>deep <b>x</b></p></div>",
        "<p style='position:absolute; left:-9999px'>x",
        "<p style='color:#fff;background-color: #FFF'>x",
    ],
)
def test_what_is_not_seen_is_not_read(hidden):
    assert text_of(f"<p>before</p>{hidden}</p><div>after</div>") == "before\n\nafter"


def test_a_header_within_an_article_or_with_a_text_of_its_own_stays():
    assert text_of("<article><header><h1>Title</h1></header>Text</article>") == "Title\n\nText"
    assert text_of(f"<header><h2>Preamble</h2><p>{'Whereas ' * 40}</p></header>").startswith("Preamble\n\nWhereas")
    assert text_of(f"<header><a href=x>{'Menu ' * 90}</a></header>ok") == "ok"


def test_headings_are_spans():
    content = read_html(b"<body>x<h1>A <i>b</i><br>c</h1><h2></h2><p>t</p><h3>D</h3>")
    assert content.text == "x\n\nA b c\n\nt\n\nD"
    assert [(h.text, h.level, content.text[h.start : h.end]) for h in content.headings] == [
        ("A b c", 1, "A b c"),
        ("D", 3, "D"),
    ]


def test_table_rows_are_lines():
    rows = "<table><tr><th>Name<th>Price<tr><td><p>Tea</p><p>green</p><td>3<tr><td><td>5<tr><td></table>after"
    assert text_of(rows) == "Name | Price\nTea green | 3\n| 5\n\nafter"


def test_a_table_that_lays_out_the_page_keeps_blocks():
    page = "<table><tr><td><h1>T</h1><p>one</p><p>two</p><table><tr><td>a<td>b</table></table>"
    assert text_of(page) == "T\n\none\n\ntwo\n\na | b"


def test_preformatted_text_keeps_its_lines():
    assert text_of("<p>x</p><pre>a\n  b\n</pre><p>y</p>") == "x\n\na\n  b\n\n\ny"


@pytest.mark.parametrize(
    "data",
    [
        "<meta charset=windows-1251><p>Привет".encode("cp1251"),
        "<?xml version='1.0' encoding='koi8-r'?><p>Привет".encode("koi8-r"),
        "<meta charset=latin-1><p>Привет".encode("utf-8-sig"),
        "<meta charset=utf-16><p>Привет".encode(),
        "<p>Привет".encode("utf-16"),
    ],
)
def test_encodings(data):
    assert read_html(data).text == "Привет"


def test_hidden_characters_go_and_the_title_is_read():
    content = parse("<title> A &amp;\n b\u200b </title><p>pass&#x200b;word &zwnj;".encode(), name="a.html")
    assert (content.title, content.text.strip()) == ("A & b", "password")
    assert content.warnings == ("removed 2 hidden characters",)


def test_a_page_without_visible_text_is_refused():
    with pytest.raises(ReadError, match="shows no text"):
        read_html(b"<script>document.write('x')</script>")


@pytest.mark.parametrize("opening", ["<div>", "<b>", "<table><tr><td>", "<header>", "<li>"])
def test_deep_nesting_is_no_matter(opening):
    begun = time.perf_counter()
    assert "end" in text_of("<article>" + opening * 5_000 + "end")
    assert time.perf_counter() - begun < 20


@pytest.mark.parametrize(
    "page", ["<div>" * 200_000 + "end", "<div>" * 200_000 + "end" + "</div>" * 200_000, "<ul><li>" * 100_000]
)
def test_nesting_that_would_take_minutes_is_refused(page):
    with pytest.raises(ReadError, match=r"nests its elements [\d,]+ deep"):
        text_of(page)


def test_what_only_looks_deep_is_read():
    script = f"<script>{'<div>' * 50_000}</script><!-- {'<ul>' * 50_000} -->"
    left_open = "<section><div></section><p><b>a" * 5_000
    beyond = "<div><table><tr><td></div>x</table></div>" * 5_000  # an end tag does not reach out of a table
    assert text_of(script + left_open + beyond).count("a") == 5_000


def test_how_much_was_hidden_is_told():
    page = "<p>seen</p><nav>menu</nav><p hidden>a</p><div style='display:none'>b<p>c</p></div><p hidden> </p>"
    content = read_html(page.encode())
    assert (content.text, content.warnings) == ("seen", ("left out 2 hidden elements with text",))
    assert text_of("<p style='color:white'>on a dark page</p>") == "on a dark page"


def test_xhtml_may_close_an_element_in_its_own_tag():
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title><script src="x"/></head><body><p/>seen'
    assert [read_html(page.encode()).text, read_html(f'<?xml version="1.0"?>\n{page}'.encode()).text] == ["seen"] * 2


def test_character_data_of_xhtml_is_text_and_of_html_none():
    body = "<body><p>one <![CDATA[two < 3 & <b>]]> four</p><script>//<![CDATA[\nx\n//]]></script><p>five <![CDATA[</p>"
    page = f'<html xmlns="http://www.w3.org/1999/xhtml">{body}</body></html>'
    assert read_html(page.encode()).text.startswith("one two < 3 & <b> four\n\nfive")
    assert "two" not in read_html(f"<html>{body}</body></html>".encode()).text


def test_notes_and_a_title_are_no_frame_of_the_page():
    page = "<header><h1>Report</h1><p>Ann</p></header>Text<aside role=doc-footnote>[1] a</aside>"
    page += "<aside class='admonition x'>b</aside>"
    assert text_of(page) == "Report\n\nAnn\n\nText\n\n[1] a\n\nb"
    assert text_of("<article>a<aside>Key fact</aside></article><aside>menu</aside>") == "a\n\nKey fact"


def test_an_aside_of_the_site_is_no_text_wherever_it_stands():
    assert text_of("<main><article>a</article><aside class='sidebar'>News</aside></main>") == "a"
    assert text_of("<main><section>a</section><aside>News</aside></main>") == "a"
    assert (
        text_of("<article>a<aside class='note'>b</aside><aside class='related-posts'>News</aside></article>")
        == "a\n\nb"
    )
    assert text_of("<main>a<header>b</header><footer>c</footer></main>") == "a\n\nb\n\nc"


def test_what_stood_beside_the_text_is_told():
    content = read_html(b"<header>ACME</header><p>a</p><aside>b</aside><footer><a href=x>Imprint</a></footer>")
    assert content.warnings == ("left out 2 parts beside the text (aside, header)",)


def test_no_site_stands_around_mail_and_books():
    page = b"<header>Dear Ann</header><p>Text</p><aside>Note</aside><footer>Bob</footer>"
    assert read_html(page, framed=False).text == "Dear Ann\n\nText\n\nNote\n\nBob"


def test_headings_in_header_cells_name_columns():
    rows = "<tr><th><h3>Item</h3><th><h3>Price</h3><tr><td>Pen<td>5"
    assert text_of(f"<table><caption><h2>Prices</h2></caption>{rows}</table>") == "Prices\n\nItem | Price\nPen | 5"
    assert text_of(f"<table><tr><td>a<table>{rows}</table></table>") == "a\n\nItem | Price\nPen | 5"


def test_a_heading_is_without_the_link_to_itself():
    content = read_html("<h2>Install<a href=#i>¶</a></h2><p><a href=#x>here</a>".encode())
    assert (content.headings[0].text, content.text) == ("Install", "Install\n\nhere")


def test_raised_and_lowered_digits_are_no_part_of_the_number_beside_them():
    assert text_of(
        "10<sup>6</sup> CO<sub>2</sub> 2<sup>nd</sup> a<sup>[1]</sup> fact<sup><a href=#n>12</a></sup>."
    ) == ("10⁶ CO₂ 2nd a[1] fact¹².")
    assert text_of("<sup>" * 3_000 + "1") == "¹"


def math(inner):
    return text_of(f"<p>2<math>{inner}</math>5")


def test_equations_in_a_line():
    half = "<mfrac><mn>1</mn>\n<mn>25</mn></mfrac>"
    assert math(half) == "2 1/25 5"
    assert math(f"<mo>=</mo><mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow>{half}</mfrac>") == "2=(a+b)/(1/25) 5"
    assert math("<msup><mi>x</mi><mn>2</mn></msup><msub><mi>a</mi><mi>i</mi></msub><mo>;</mo>") == "2x²a_i;5"
    power = "<msup><mi>x</mi><mrow><mi>k</mi><mo>+</mo><mn>1</mn></mrow></msup>"
    assert math(f"<msqrt>{power}</msqrt>") == "2√(x^(k+1))5"
    total = "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>m</mi></munderover><mi>i</mi>"
    assert math(total) == "2∑_(i=1)^mi5"


def test_raised_text_is_what_a_person_sees():
    assert text_of("10<sup>6<span hidden>ab</span></sup>") == "10⁶"
    assert text_of("1<sup>1/2</sup>cups, 1 <sup>3/4</sup>") == "1 1/2 cups, 1 3/4"
    assert text_of("Call<sub>044 123 45 67</sub>") == "Call044 123 45 67"


def test_a_fraction_is_apart_in_its_own_line_only():
    half = "<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>"
    assert text_of(f"<div>{half}</div><pre>code</pre>") == "1/2\n\ncode"
    assert text_of(f"<div>2</div>{half}<div>5</div>") == "2\n1/2\n5"
