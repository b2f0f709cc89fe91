import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.reading.hygiene import strip_hidden


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("pass\u200bword", "password"),
        ("a\u200cb\u200dc", "abc"),
        ("\ufeffstart", "start"),
        ("co\u00adoperate", "cooperate"),
        ("x\u202egnp.exe\u202c", "xgnp.exe"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all"), "hi"),
        ("a\0b\x1bc", "abc"),
        ("\u2764\ufe0f\ufe0f\ufe0e\U000e0123", "\u2764\ufe0f"),
        ("a\ud800b", "ab"),
        ("\u2066isolate\u2069 \u061c\u200f\u200e", "isolate "),
    ],
)
def test_what_cannot_be_seen_goes(hidden, seen):
    assert strip_hidden(hidden) == seen


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم",  # Persian: a non-joiner within the verb
        "क्‍ष क्‌ष",  # Hindi: half form and explicit virama
        "👩‍👩‍👧 🏳️‍🌈",
        "ភាសា\u200bខ្មែរ",  # Khmer marks word ends by a zero-width space
        "葛\U000e0100城",  # an ideographic variant in a name
        "tab\tline\nnext\r\n\u00a0\u3000\f",
    ],
)
def test_what_scripts_need_stays(text):
    assert strip_hidden(text) == text


@given(st.text(st.characters(codec=None) | st.sampled_from("\u200b\u200c\u200d\ufe0f\U000e0041\u00adم😀ក")))
def test_is_idempotent_and_only_removes(text):
    once = strip_hidden(text)
    assert strip_hidden(once) == once
    rest = iter(text)
    assert all(c in rest for c in once)
    once.encode("utf-8")
