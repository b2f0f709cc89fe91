import io
import zipfile

import pytest

from m3rag.errors import ReadError
from m3rag.reading.detect import KINDS, TEXT_KINDS, container_of, kind_of

from .pdfs import pdf


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (pdf("x"), "pdf"),
        (b"\0\xff junk \n" + pdf("x"), "pdf"),
        (b"This is how a file begins: it says %PDF-1.4 there", "text"),
        (zipped(word__document="", mimetype="x"), "docx"),
        (zipped(ppt__presentation=""), "pptx"),
        (zipped(xl__workbook=""), "xlsx"),
        (zipped(mimetype="application/epub+zip"), "epub"),
        (zipped(**{"META-INF__container.xml": ""}), "epub"),
        (zipped(mimetype="application/vnd.oasis.opendocument.text-template\n"), "odt"),
        (zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), "ods"),
        (zipped(notes="words"), "zip"),
        (b"{\\rtf1 x}", "rtf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "ole2"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\0\0\0\x20ftypisom", "media"),
        (b"\xef\xbb\xbf\n<!-- a --><!DOCTYPE HTML><p>", "html"),
        (b"<?xml version='1.0'?>\n<html xmlns='x'>", "html"),
        (b"<p>a fragment", "text"),
        (b"From: a@b.c\r\nTo: d@e.f\r\n\tg@h.i\r\nSubject: x\r\n\r\nHello", "eml"),
        (b"Note: this\nAlso: that\n\nis prose", "text"),
        (b'\n {"a": 1}', "json"),
        (b"[1, 2]", "json"),
        (b"[see below]", "text"),
        (b"{curly} words", "text"),
        (b"", "text"),
    ],
)
def test_content_names_the_kind(data, kind):
    assert kind_of(data) == kind
    assert kind in KINDS
    assert (container_of(data) == kind) == (kind not in TEXT_KINDS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("hostile", [b"<!-- -->" * 20_000, b"a: b\n" * 100_000, b" " * 1_000_000, b"<!--" * 100_000])
def test_hostile_text_takes_no_time(hostile):
    assert kind_of(hostile) == "text"


def test_a_damaged_archive_is_named() -> None:
    with pytest.raises(ReadError, match="damaged ZIP"):
        kind_of(b"PK\x03\x04 cut off")
