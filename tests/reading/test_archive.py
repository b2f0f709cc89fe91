import io
import struct
import warnings
import zipfile

import pytest

from m3rag.errors import ReadError
from m3rag.reading import archive as module
from m3rag.reading.archive import Archive

from .packages import zipped


def test_entries_are_found_whatever_their_case_and_slashes():
    archive = Archive(zipped({"Word/Document.xml": b"x" * 200_000, "a\\b.xml": b"y"}))
    assert archive.names == ("Word/Document.xml", "a/b.xml")
    assert archive.find("word/document.XML") == "Word/Document.xml"
    assert archive.find("word/other.xml") is None
    assert archive.read("word/document.xml") == b"x" * 200_000
    assert max(map(len, archive.chunks("Word/Document.xml"))) <= module.CHUNK
    with pytest.raises(ReadError, match=r"its part b is missing"):
        archive.read("b")
    with pytest.raises(ReadError, match=r"inflates to 200,000 bytes, the limit is 10"):
        archive.read("word/document.xml", limit=10)


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "C:\\x", "c:x", "..\\up", "\\\\host\\share"])
def test_names_that_lead_out_are_refused(name):
    data = zipped({"aaa": b"x", "bbb" + "b" * (len(name) - 3): b"y"})
    data = data.replace(("bbb" + "b" * (len(name) - 3)).encode(), name.encode().ljust(3))
    with pytest.raises(ReadError, match="leads out of it"):
        Archive(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "one")
        archive.writestr("word\\document.xml", "two")
    with pytest.raises(ReadError, match=r"two entries of the name word/document\.xml"):
        Archive(buffer.getvalue())


def test_bombs_are_refused_before_they_inflate():
    with pytest.raises(ReadError, match="decompression bomb"):
        Archive(zipped({"a": bytes(module.SMALL + 1)}))
    # Many entries, each of them harmless.
    with pytest.raises(ReadError, match=r"bomb \([\d,]+ bytes inflate to 40,"):
        Archive(zipped({str(n): bytes(2_000_000) for n in range(20)}))
    assert len(Archive(zipped({"small": bytes(module.SMALL)})).read("small")) == module.SMALL


def test_too_many_entries_are_refused():
    with pytest.raises(ReadError, match="more than 20,000 entries"):
        Archive(zipped({str(n): b"" for n in range(module.MAX_ENTRIES + 1)}))


@pytest.mark.parametrize("stated", [10, 3_000_000])
def test_an_entry_that_lies_about_its_size_inflates_no_further(stated):
    data = bytearray(zipped({"a": bytes(2_000_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<I", stated)
    pieces = []
    with pytest.raises(ReadError, match="damaged ZIP archive or office document"):
        pieces.extend(Archive(bytes(data)).chunks("a"))
    assert sum(map(len, pieces)) <= 2_000_000


def test_what_cannot_be_opened_is_named():
    whole = zipped({"a": b"text" * 100})
    with pytest.raises(ReadError, match="its end is missing"):
        Archive(whole[:60])
    with pytest.raises(ReadError, match="not a zip file"):
        Archive(b"no archive at all")
    broken = bytearray(whole)
    broken[40] ^= 0xFF
    with pytest.raises(ReadError, match="damaged"):
        Archive(bytes(broken)).read("a")
    with pytest.raises(ReadError, match="packs a by method 14"):
        Archive(zipped({"a": b"x"}, compression=zipfile.ZIP_LZMA))
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ReadError, match="needs a password"):
        Archive(bytes(encrypted))


def test_old_office_files_are_refused_by_name():
    magic = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
    with pytest.raises(ReadError, match=r"Office 97-2003.*save it as \.docx"):
        Archive(magic)
    with pytest.raises(ReadError, match="encrypted and needs a password"):
        Archive(magic + "EncryptedPackage".encode("utf-16-le"))


def test_an_empty_archive_has_no_names():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Archive(zipped({})).names == ()
