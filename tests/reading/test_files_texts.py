"""Every real file whose format is text or PDF yields its strings or is refused with its reason, within a minute."""

import re

import pytest

from m3rag.errors import ReadError
from m3rag.reading import read

from .files import FILES, MANIFEST, check, real_files, squeezed

SUFFIXES = (".pdf", ".csv", ".tsv", ".json", ".jsonl", ".eml", ".txt", ".html", ".htm", ".md")

REASONS = {
    "password needed": r"needs a password",
    "file is empty (0 bytes)": r"is empty \(0 bytes\)",
    "no text layer: needs OCR": r"no text layer on (any of its \d+ pages|its only page): run OCR",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("entry", real_files(*SUFFIXES))
def test_each_file(entry):
    document, path = check(entry), FILES / entry["file"]
    if document is None:
        with pytest.raises(ReadError, match=f"{re.escape(entry['file'])}.*{REASONS[entry['error']]}"):
            read(path, root=FILES)
        return
    text = document.text
    at = 0
    for page in document.pages:
        assert at <= page.start <= page.end <= len(text)
        at = page.end
    assert [p.number for p in document.pages] == list(range(1, len(document.pages) + 1))
    at = 0
    for heading in document.headings:
        assert at <= heading.start < heading.end <= len(text)
        if path.suffix != ".md":  # whose headings' spans hold their marks
            assert squeezed(heading.text) == squeezed(text[heading.start : heading.end])
        at = heading.end
    assert document.title
    text.encode("utf-8")
    assert not re.search("[\u00ad\u2060\u202a-\u202e\ufeff\ufffe\U000e0000-\U000e007f]", text)


@pytest.mark.skipif(not MANIFEST.exists(), reason="the real files are not beside this checkout")
@pytest.mark.parametrize("path", sorted(FILES.glob("*/*.pdf")), ids=lambda path: path.name)
@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_a_pdf_is_known_whatever_its_name(tmp_path, path, suffix):
    if path.parent.name == "pdf-refuse":
        pytest.skip("it is refused under any name")
    other = tmp_path / f"other{suffix}"
    other.write_bytes(path.read_bytes())
    document = read(other, root=tmp_path)
    assert document.text == read(path, root=FILES).text
    assert any("read as PDF" in told for told in document.warnings) == bool(suffix)
