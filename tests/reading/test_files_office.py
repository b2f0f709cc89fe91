import pytest

from m3rag.errors import ReadError
from m3rag.reading import read

from .files import FILES, check, real_files

OFFICE = (".docx", ".pptx", ".xlsx", ".odt", ".ods", ".odp", ".rtf", ".epub")
SAID = {"password": "password", "truncated": "damaged"}


@pytest.mark.parametrize("entry", real_files(*OFFICE))
def test_real_files_are_read_or_refused_as_they_must(entry):
    document = check(entry)
    if document is None:
        said = next(word for sign, word in SAID.items() if sign in entry["error"])
        with pytest.raises(ReadError, match=said):
            read(FILES / entry["file"], root=FILES)
        return
    for heading in document.headings:
        assert document.text[heading.start : heading.end] == heading.text
    assert [page.start for page in document.pages] == sorted(page.start for page in document.pages)
