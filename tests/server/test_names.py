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
        ("say %22hi%22.txt", "say hi.txt"),  # as a form has `"`
        ("50%0Added.txt", "50%0Added.txt"),
        ("%%2222 100%.txt", "100%.txt"),
        ("می\u200cخواهم.txt", "می\u200cخواهم.txt"),
        ("PDF\u200cها.txt", "PDF\u200cها.txt"),
        ("\U0001f469\u200d\U0001f680.txt", "\U0001f469\u200d\U0001f680.txt"),
        ("\u200dinv\u200coice\u200d.txt", "invoice.txt"),
        ("ها\u200c\u200d\u200c.ها\u200c", "ها.ها"),
    ],
)
def test_what_is_left_of_a_name(given: str, name: str) -> None:
    assert upload_name(given) == name


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=400)
    | st.builds("{}.pdf".format, st.text(max_size=300))
    | st.text('%20AD" .aه\u0301\u037e\u212a\u200c\u200d\u2001\u202e', max_size=30)
    | st.text("aه\u200c\u200d", min_size=60, max_size=120)
)
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
