import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import InputError, ReadError
from m3rag.reading import FORMATS, Content, Format, document_id, parse, read
from m3rag.reading.hygiene import clean

from .pdfs import pdf


def test_a_document_knows_its_bytes_and_its_place(tmp_path):
    path = tmp_path / "sub" / "a b.md"
    path.parent.mkdir()
    path.write_bytes("# Überschrift\r\nText\u200b".encode())
    document = read(path, root=tmp_path)
    assert document.id == "sub/a b.md"
    assert document.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (document.text, document.title) == ("# Überschrift\nText", "Überschrift")


def test_the_title_falls_back_to_the_file_name(tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    assert read(tmp_path / "notes.txt").title == "notes.txt"


def test_an_id_by_itself_is_relative_to_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert document_id("x.md") == "x.md"
    assert document_id(Path("sub") / "x.md") == "sub/x.md"
    assert document_id(tmp_path / "there" / "x.md") == (tmp_path / "there" / "x.md").as_posix().lstrip("/")
    with pytest.raises(InputError, match="not below the root"):
        document_id(tmp_path / "x.md", root=tmp_path / "here")


def test_content_decides_before_the_suffix(tmp_path):
    path = tmp_path / "misnamed.txt"
    path.write_bytes(pdf("inside a PDF"))
    document = read(path)
    assert document.text == "inside a PDF"
    assert document.warnings == ("read as PDF, which it is by its content, though its suffix is .txt",)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("page.xls", b"<html><body><p>words", "words"),
        ("LICENSE", b"<words>", "<words>"),
        ("a.log", "größer".encode("utf-16"), "größer"),
        ("a.txt", b"<html><body><p>words", "<html><body><p>words"),
        ("a.md", b'{"a": 1}', '{"a": 1}'),
        ("export", b'{"a": 1}', "a: 1"),
    ],
)
def test_a_text_is_what_its_suffix_says_else_what_it_shows(tmp_path, name, data, text):
    (tmp_path / name).write_bytes(data)
    document = read(tmp_path / name)
    assert (document.text, document.warnings) == (text, ())


def test_with_few_formats_the_others_are_refused_by_name(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"text")
    with pytest.raises(ReadError, match=r"a\.xyz: is of no known format \(\.xyz\); supported are \.log"):
        read(tmp_path / "a.xyz", formats=[Format("logs", (".log",), lambda data: Content("x"))])


def test_spans_move_with_what_hygiene_removes(tmp_path):
    (tmp_path / "a.md").write_text("\u200bone\n\n# T\u200bit\u200ble ﬁne\n\ntwo\n# \u200b\n", encoding="utf-8")
    document = read(tmp_path / "a.md")
    assert document.text == "one\n\n# Title fine\n\ntwo\n# \n"
    assert [(h.text, document.text[h.start : h.end]) for h in document.headings] == [("Title fine", "# Title fine")]
    assert (document.title, document.warnings) == ("Title fine", ("removed 4 hidden characters",))


def test_a_password_goes_to_the_readers_that_take_one():
    def locked(data: bytes, *, password: str | None) -> Content:
        return Content(f"opened with {password}")

    formats = [
        Format("locked", (".locked",), locked, takes_password=True),
        Format("logs", (".log",), lambda d: Content("x")),
    ]
    assert parse(b"x", name="a.locked", password="key", formats=formats).text == "opened with key"
    assert parse(b"x", name="a.log", password="key", formats=formats).text == "x"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.xyz", b"\0\1\2\3" * 9, "binary data"),
        ("a.txt", b"", "empty \\(0 bytes\\)"),
        ("a.md", " \n\u200b\u3000".encode(), "no text but white space"),
        ("a.txt", b"PK\x03\x04rest", "ZIP archive"),
        ("a.html", b"\x89PNG\r\n\x1a\n", "is a PNG image, not HTML; run OCR on it"),
        ("a.txt", b"\0\1\2\3" * 9, "binary data"),
        ("a.pdf", b"no signature", "damaged PDF"),
        ("a", b"SQLite format 3\0", "is an SQLite database, which is not read; leave it out"),
    ],
)
def test_refusals_name_the_file_and_the_reason(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ReadError, match=said) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_large_files_are_refused_before_they_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 11)
    with pytest.raises(ReadError, match="has 11 bytes, the limit is 10"):
        read(tmp_path / "a.txt", max_bytes=10)
    assert read(tmp_path / "a.txt", max_bytes=11).text == "x" * 11
    assert read(tmp_path / "a.txt", max_bytes=None).text == "x" * 11


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "missing.txt")
    with pytest.raises(InputError, match="not a file"):
        read(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("secret")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ReadError, match=r"a\.txt: could not be read \(Permission denied\)"):
        read(tmp_path / "a.txt")


def test_a_file_that_vanishes_while_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("here")

    def gone(self):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(ReadError, match="was removed or renamed before it was read; ingest again"):
        read(tmp_path / "a.txt")


def test_a_format_is_added_by_one_entry(tmp_path):
    (tmp_path / "a.log").write_text("one")
    logs = Format("logs", (".log",), lambda data: Content(data.decode().upper()))
    assert read(tmp_path / "a.log", formats=(*FORMATS, logs)).text == "ONE"
    magic = replace(logs, magic=b"on", suffixes=())
    assert read(tmp_path / "a.log", formats=(magic,)).text == "ONE"


def test_importing_reading_imports_no_parser():
    heavy = "{'pypdfium2', 'pypdf', 'selectolax', 'charset_normalizer', 'torch', 'numpy'}"
    code = f"import sys, m3rag.reading; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_parser_that_fails_is_a_bad_file_not_a_crash(tmp_path):
    def broken(data: bytes) -> Content:
        raise IndexError("list index out of range")

    (tmp_path / "a.odd").write_bytes(b"x")
    with pytest.raises(ReadError, match=r"a\.odd: is damaged or unusual: .*IndexError"):
        read(tmp_path / "a.odd", formats=[Format("odd", (".odd",), broken)])


SNIPPETS = [
    "# T\n",
    "<h1>T</h1>",
    "<p hidden>x</p>",
    '{"title": "T"}\n',
    "a,b\n",
    "Subject: T\n",
    "\n\n",
    "\u200b",
    "\u00ad\n",
    "ﬁ",
]


@given(
    st.sampled_from([".txt", ".md", ".html", ".json", ".jsonl", ".csv", ".eml", ""]),
    st.lists(st.sampled_from(SNIPPETS) | st.text(st.characters(codec="utf-8")), max_size=12).map("".join),
)
def test_spans_are_spans_of_the_text_whatever_it_holds(suffix, source):
    try:
        content = parse(source.encode(), name=f"a{suffix}")
    except ReadError:
        return
    assert clean(content.text) == (clean(content.text)[0].of(content.text), 0)
    content.text.encode("utf-8")
    at = 0
    for heading in content.headings:
        assert at <= heading.start < heading.end <= len(content.text)
        assert heading.text.strip()
        if suffix == ".html":
            assert content.text[heading.start : heading.end] == heading.text
        at = heading.end
