"""docling itself, where it is installed. Its models are not: what needs them must say so."""

import io

import pytest

pytest.importorskip("docling")

from docx import Document as WordDocument
from pypdf import PdfWriter

from m3rag.errors import ReadError
from m3rag.reading import read
from m3rag.reading.readers import sandbox_of


@pytest.fixture(scope="module")
def sandbox():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", "nowhere")
        patch.delenv("DOCLING_ARTIFACTS_PATH", raising=False)
        with sandbox_of("docling") as opened:
            yield opened


def test_a_word_document_with_a_table(sandbox, tmp_path):
    word = WordDocument()
    word.add_heading("Water supply", 1)
    word.add_paragraph("The pump delivers 40 litres.")
    table = word.add_table(2, 2)
    for number, words in enumerate(("Part", "Price", "Pump", "120")):
        table.cell(*divmod(number, 2)).text = words
    path = tmp_path / "a.docx"
    word.save(str(path))
    document = sandbox.read(path)
    assert document.text == "Water supply\n\nThe pump delivers 40 litres.\n\nPart | Price\nPump | 120"
    assert [h.text for h in document.headings] == ["Water supply"]
    assert document.content_hash == read(path).content_hash


def test_a_damaged_document_is_refused_before_docling_sees_it(sandbox, tmp_path):
    buffer = io.BytesIO()
    WordDocument().save(buffer)
    path = tmp_path / "a.docx"
    path.write_bytes(buffer.getvalue()[:700])
    with pytest.raises(ReadError, match=r"a\.docx: is a damaged ZIP archive"):
        sandbox.read(path)


def test_what_docling_does_not_read_is_read_as_ever(sandbox, tmp_path):
    path = tmp_path / "a.md"
    path.write_text("# Ducks\n\nDucks swim.", encoding="utf-8")
    assert sandbox.read(path).text == read(path).text


def test_a_pdf_without_the_models_says_how_they_are_fetched(sandbox, tmp_path):
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.encrypt("secret")
    path = tmp_path / "a.pdf"
    writer.write(str(path))
    with pytest.raises(ReadError, match=r"a\.pdf: .*password"):
        sandbox.read(path)
    with pytest.raises(ReadError, match=r"a\.pdf: docling has no models.*docling-tools models download"):
        sandbox.read(path, password="secret")
