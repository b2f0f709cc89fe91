import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from m3rag.errors import InputError, ReadError
from m3rag.reading import FORMATS, SUPPORTED_SUFFIXES, Content, Format, document_id, read

from .files import check, real_files
from .pdfs import pdf


@pytest.mark.parametrize("entry", real_files(".docx", ".odt", ".rtf", ".pptx", ".xlsx", ".epub", ".csv"))
def test_formats_of_later_versions_are_refused_by_name(entry):
    refused = check({**entry, "must": "refuse"})
    assert refused is None


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
    assert read(path).text == "inside a PDF"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.xyz", b"text", r"a\.xyz: is of no known format \(\.xyz\); supported are \.htm"),
        ("README", b"text", "no suffix"),
        ("a.txt", b"", "empty \\(0 bytes\\)"),
        ("a.md", " \n\u200b\u3000".encode(), "no text but white space"),
        ("a.txt", b"PK\x03\x04rest", "ZIP archive"),
        ("a.html", b"\x89PNG\r\n", "PNG image, not HTML"),
        ("a.txt", b"\0\1\2\3" * 9, "binary data"),
        ("a.pdf", b"<html>", "damaged PDF"),
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


def test_a_format_is_added_by_one_entry(tmp_path):
    (tmp_path / "a.log").write_text("one")
    logs = Format("logs", (".log",), lambda data: Content(data.decode().upper()))
    assert read(tmp_path / "a.log", formats=(*FORMATS, logs)).text == "ONE"
    magic = replace(logs, magic=b"on", suffixes=())
    assert read(tmp_path / "a.log", formats=(magic,)).text == "ONE"


def test_suffixes_are_unique_and_lower_case():
    listed = [s for f in FORMATS for s in f.suffixes]
    assert sorted(SUPPORTED_SUFFIXES) == sorted(listed)
    assert all(s == s.lower() and s.startswith(".") for s in listed)


def test_importing_reading_imports_no_parser():
    heavy = "{'pypdfium2', 'selectolax', 'charset_normalizer', 'torch', 'numpy'}"
    code = f"import sys, m3rag.reading; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_parser_that_fails_is_a_bad_file_not_a_crash(tmp_path):
    def broken(data: bytes) -> Content:
        raise IndexError("list index out of range")

    (tmp_path / "a.odd").write_bytes(b"x")
    with pytest.raises(ReadError, match=r"a\.odd: is damaged or unusual: .*IndexError"):
        read(tmp_path / "a.odd", formats=[Format("odd", (".odd",), broken)])
