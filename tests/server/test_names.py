from __future__ import annotations

import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.server.names import MOST_BYTES, upload_name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\notes.txt", "notes.txt"),
        ("..", "document"),
        ("", "document"),
        (".pdf", "document.pdf"),
        ("  .pdf", "document.pdf"),
        ("...", "document"),
        ("a\x00b\n.txt", "ab.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("line\u2028and\u2029end\U000e0041.txt", "lineandend.txt"),
        ("Cafe\u0301.txt", "Café.txt"),
        ("报告 2024.docx", "报告 2024.docx"),
        ("CON.txt", "_CON.txt"),
        ("nul", "_nul"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ('what?*"<>|:.md', "what.md"),
        ("trailing. ", "trailing"),
        (" leading.txt", "leading.txt"),
        (".hidden.txt", "hidden.txt"),
    ],
)
def test_what_is_left_of_a_name(given: str, name: str) -> None:
    assert upload_name(given) == name


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400) | st.builds("{}.pdf".format, st.text(max_size=300)))
def test_any_name_becomes_one_that_every_system_takes(given: str) -> None:
    name = upload_name(given)
    assert name == unicodedata.normalize("NFC", name)
    assert 0 < len(name.encode()) <= MOST_BYTES
    assert name == Path(name).name == PureWindowsPath(name).name
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert not set(name) & set('<>:"/\\|?*')
    assert upload_name(name) == name


def test_a_long_name_keeps_its_suffix() -> None:
    name = upload_name("é" * 400 + ".pdf")
    assert name.endswith("é.pdf")
    assert len(name.encode()) <= MOST_BYTES
