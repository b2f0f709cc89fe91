from concurrent.futures import ThreadPoolExecutor

import pytest

from m3rag.errors import ReadError
from m3rag.reading import read
from m3rag.reading.pdf import read_pdf

from .files import FILES, MANIFEST, check, real_files
from .pdfs import pdf


@pytest.mark.parametrize("entry", real_files(".pdf"))
def test_real_files(entry):
    document = check(entry)
    if document is None:
        return
    assert "\ufffe" not in document.text
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


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("an exam-\nple of it", "an example of it"),
        ("Schwarz-\nDruck", "Schwarz-Druck"),
        ("INTER-\nNATIONAL", "INTERNATIONAL"),
        ("pages 1-\n2 only", "pages 1-\n2 only"),
        ("a well-known word", "a well-known word"),
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
