import io
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pypdf
import pypdfium2
import pytest

from m3rag.errors import ReadError
from m3rag.reading import read
from m3rag.reading.pdf import read_pdf
from m3rag.reading.pdf_rtl import in_reading_order, is_right_to_left

from .files import FILES, MANIFEST, check, real_files, squeezed
from .pdfs import pdf


@pytest.mark.parametrize("entry", real_files(".pdf"))
def test_real_files(entry):
    document = check(entry)
    if document is None:
        return
    assert "\ufffe" not in document.text
    assert all(document.text[h.start : h.end].split() == h.text.split() for h in document.headings)
    assert [h.start for h in document.headings] == sorted({h.start for h in document.headings})
    assert "\r" not in document.text
    assert [p.number for p in document.pages] == list(range(1, len(document.pages) + 1))
    assert "\n\n".join(document.text[p.start : p.end] for p in document.pages if p.start < p.end) == document.text


@pytest.mark.skipif(not MANIFEST.exists(), reason="the real files are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("user-password-libreoffice.pdf", "needs a password"),
        ("empty.pdf", "is empty"),
        ("image-only.pdf", "no text layer.*OCR"),
    ],
)
def test_refusals_say_what_is_wrong(name, said):
    with pytest.raises(ReadError, match=said):
        read(FILES / "pdf-refuse" / name)


def test_pages_are_spans_and_pages_without_text_are_named():
    content = read_pdf(pdf("First page\nsecond line", None, "", "Third", None, None))
    assert content.text == "First page\nsecond line\n\nThird"
    spans = [content.text[p.start : p.end] for p in content.pages]
    assert spans == ["First page\nsecond line", "", "", "Third", "", ""]
    assert content.warnings == ("pages 2, 5-6 without a text layer: run OCR on the file if there is text to be seen",)


def test_a_file_without_any_text_is_refused():
    with pytest.raises(ReadError, match="no text layer on any of its 2 pages: run OCR"):
        read_pdf(pdf(None, ""))
    with pytest.raises(ReadError, match="no text layer on its only page: run OCR"):
        read_pdf(pdf(None))


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("an exam-\nple of it", "an example of it"),
        ("Schwarz-\nDruck", "Schwarz-Druck"),
        ("INTER-\nNATIONAL", "INTERNATIONAL"),
        ("pages 1-\n2 only", "pages 1-\n2 only"),
        ("a well-known word", "a well-known word"),
        ("well-\nknown by e-\nmail", "well-known by e-mail"),
        ("die Vor-\nund Nachteile", "die Vor- und Nachteile"),
    ],
)
def test_hyphens_at_the_end_of_a_line(lines, text):
    assert read_pdf(pdf(lines)).text == text


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("The Siege of Vicksburg", "The Siege of Vicksburg"),
        ("Microsoft Word - draft3.doc", ""),
        ("untitled", ""),
        ("zen_of_python.txt", ""),
        ("Slide 1", ""),
        ("12-03", ""),
        ("about:blank", ""),
        ("About: a memoir", "About: a memoir"),
        (None, ""),
    ],
)
def test_a_title_that_names_nothing_is_left_out(title, kept):
    assert read_pdf(pdf("text", title=title)).title == kept


@pytest.mark.parametrize("damaged", [b"%PDF-1.7\nnothing else", b"not a pdf", pdf("text")[:60]])
def test_a_damaged_file_is_refused(damaged):
    with pytest.raises(ReadError, match=r"is a damaged PDF .*repair it"):
        read_pdf(damaged)


def test_threads_may_read_at_the_same_time():
    files = [pdf(*(f"file {n} page {p}" for p in range(20))) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        texts = [content.text for content in pool.map(read_pdf, files)]
    assert texts == ["\n\n".join(f"file {n} page {p}" for p in range(20)) for n in range(12)]


REAL = pytest.mark.skipif(not MANIFEST.exists(), reason="the real files are not beside this checkout")


def encrypted(data, **passwords):
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(algorithm="RC4-128", **passwords)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_an_encrypted_file_opens_with_either_password_and_asks_for_one():
    data = encrypted(pdf("a secret"), user_password="user", owner_password="owner")
    assert read_pdf(data, password="user").text == read_pdf(data, password="owner").text == "a secret"
    with pytest.raises(ReadError, match=r"is encrypted and needs a password.*--password-file"):
        read_pdf(data)
    with pytest.raises(ReadError, match="the password is not the right one"):
        read_pdf(data, password="other")
    assert read_pdf(encrypted(pdf("open"), user_password="", owner_password="owner")).text == "open"
    assert read_pdf(pdf("open"), password="needless").text == "open"


@REAL
def test_a_real_encrypted_file_opens_with_its_password():
    path = FILES / "pdf-refuse" / "user-password-libreoffice.pdf"
    document = read(path, root=FILES, password="openpassword")
    assert "Lorem ipsum dolor sit amet" in document.text


@REAL
def test_arabic_is_in_logical_order_also_when_encrypted():
    data = (FILES / "pdf" / "arabic-article.pdf").read_bytes()
    content = read_pdf(data)
    assert "تحسين الإنتاجية وحل المشكلات من خلال البرمجة بلغة R وPython" in content.text
    assert not content.warnings
    locked = encrypted(data, user_password="key")
    assert read_pdf(locked, password="key").text == content.text


@REAL
def test_columns_of_vertical_japanese_are_lines_from_right_to_left():
    document = read(FILES / "pdf" / "japanese-vertical-poem.pdf", root=FILES)
    lines = [line.strip() for line in document.text.split("\n")]
    assert lines[:4] == ["序", "わたくしといふ現象は", "假定された有機交流電燈の", "ひとつの青い照明です"]
    assert lines[-1].startswith("大正十三年")


@REAL
def test_bookmarks_are_headings():
    document = read(FILES / "pdf" / "developers-reference.ja.pdf", root=FILES)
    headings = {h.text: h for h in document.headings}
    assert headings["3 Debian 開発者の責務"].level < headings["3.1 パッケージメンテナの責務"].level
    assert len(headings) > 250


def bare(text):
    """Letters only: digits are page numbers, hyphens may have been rejoined."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalpha())


@REAL
@pytest.mark.parametrize("path", sorted(FILES.glob("*/*.pdf")), ids=lambda path: path.name)
def test_no_line_of_a_real_file_is_lost(path):
    if path.parent.name == "pdf-refuse" or path.name == "arabic-article.pdf":
        pytest.skip("it has no text that pdfium reads rightly")
    text = bare(read(path, root=FILES).text)
    document = pypdfium2.PdfDocument(path)
    for page in document:
        for line in page.get_textpage().get_text_range().splitlines():
            letters = bare(line)
            assert letters in text or len(letters) <= 10, line
    document.close()


@REAL
def test_running_headers_of_real_files_are_gone_but_once():
    text = read(FILES / "pdf" / "federal-register.pdf", root=FILES).text
    assert text.count("Thursday, August 6, 2020 / Proposed Rules") <= 2
    assert "Thursday, August 6, 2020" in text
    text = read(FILES / "pdf" / "fr-olap-paper.pdf", root=FILES).text
    assert squeezed(text).count(squeezed("Résumés et interrogations de logs de requêtes OLAP")) == 1
    text = read(FILES / "pdf" / "developers-reference.ja.pdf", root=FILES).text
    assert text.count("Debian Developer’s Reference, リリース 12.18") == 1


def test_running_lines_and_page_numbers_of_a_made_file():
    # The helper draws from 700 downwards; a low page puts the first line into its upper margin.
    data = pdf(*(f"Annals of Tea\nBody of page {word}" for word in ("one", "two", "three", "four", "five")))
    content = read_pdf(data.replace(b"[0 0 595 842]", b"[0 0 595 720]"))
    assert content.text.startswith("Annals of Tea\nBody of page one\n\nBody of page two\n\nBody of page three")
    assert content.text.count("Annals") == 1


def headed(*heads):
    """A page for each head, which stands in the upper margin."""
    pages = (f"{head}\nBody of page {word}" for head, word in zip(heads, ("one", "two", "three", "four"), strict=True))
    return pdf(*pages).replace(b"[0 0 595 842]", b"[0 0 595 720]")


def test_a_number_is_the_pages_where_it_stands_far_from_the_words():
    heads = [f"Lesson {n}" for n in range(1, 5)]
    assert [head in read_pdf(headed(*heads)).text for head in heads] == [True] * 4
    apart = read_pdf(headed(*(f"Lesson)Tj 100 0 Td ({n})Tj -100 0 Td (" for n in range(1, 5)))).text
    assert [head in apart for head in heads] == [True, False, False, False]


@pytest.mark.timeout(30)
def test_a_count_of_pages_that_is_a_lie_is_no_long_wait():
    content = read_pdf(pdf("text", count=40_000))
    assert content.text == "text"
    assert "pages 2-40000 could not be read" in content.warnings[0]
    with pytest.raises(ReadError, match=r"says it has 60,000 pages, the limit is 50,000"):
        read_pdf(pdf("text", count=60_000))


@pytest.mark.parametrize("letters", ["\u05d0\u05d1", "\u0627\u0644", "\ufefb"])
def test_what_is_written_from_right_to_left(letters):
    assert is_right_to_left(f"latin {letters}")
    assert not is_right_to_left("latin 123 \u4e00")


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        ("hg 15 dc ba", "\u05d0\u05d1 \u05d2\u05d3 15 \u05d6\u05d7"),
        ("dc 7 hg 15 ba", "\u05d0\u05d1 15 \u05d6\u05d7 7 \u05d2\u05d3"),
        ("hg dc ba", "\u05d0\u05d1 \u05d2\u05d3 \u05d6\u05d7"),
    ],
)
def test_lines_drawn_from_the_left_are_read_from_the_right(drawn, text):
    meaning = dict(zip("abcdefgh", "\u05d0\u05d1\u05d2\u05d3\u05d4\u05d5\u05d6\u05d7", strict=True))
    assert read_pdf(pdf(drawn, meaning=meaning)).text == text


@pytest.mark.parametrize(
    ("second", "first"),
    [
        ("\u05d0\u05d115 \u05d2\u05d3", "\u05d1\u05d0 15 \u05d3\u05d2"),  # in order; their letters are not
        ("15\u05d2\u05d3 \u05d0\u05d1", "\u05d0\u05d1 \u05d2\u05d3\u05d4 15"),  # other letters
        ("15\u05d2\u05d3\u05d0\u05d1", "\u05d0\u05d1 \u05d2\u05d3 15"),  # other words
    ],
)
def test_a_line_stays_where_the_readings_agree_or_cannot_be_compared(second, first):
    assert in_reading_order(second, first) == second


def test_numbers_of_the_same_digits_keep_their_places():
    assert in_reading_order("21 ב 12 א", "א 12 ב 21") == "א 12 ב 21"


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_lines_keep_their_order_however_the_page_is_turned(turned):
    lines = "The first line of the page,\nwhich goes on here\nand there\nuntil it has come to its end."
    assert read_pdf(pdf(lines, entries=b"/Rotate %d" % turned)).text == lines
