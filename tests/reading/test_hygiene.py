import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m3rag.reading.hygiene import clean, strip_hidden


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


@pytest.mark.parametrize(
    ("source", "text", "told"),
    [
        ("pass\u200bword\u200b", "password", 2),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore"), "hi", 6),
        ("x\u202egnp.exe\u202c", "xgnp.exe", 2),
        ("\ufeffDonau\u00addampf\u200e\x01", "Donaudampf", 0),
        ("exam\u00ad\n  ple and un\u00ad\r\nter", "example and unter", 0),
        ("1\u00ad\n2", "1\n2", 0),
        ("eﬃcient ﬁne", "efficient fine", 0),
        ("\ufef9\u2f00\u2e9f", "لإ一母", 0),
        ("10² ½ … Ａ ㈱ Ⅳ", "10² ½ … Ａ ㈱ Ⅳ", 0),
    ],
)
def test_clean_tells_what_an_honest_text_would_not_hold(source, text, told):
    edited, count = clean(source)
    assert (edited.text, count) == (text, told)


@given(st.text(st.characters(codec=None) | st.sampled_from("\u200b\u200c\ufe0f\U000e0041\u00ad\nﬁﻹaم")))
def test_clean_is_exact_and_idempotent(source):
    edited, _ = clean(source)
    assert clean(edited.text) == (edited.of(edited.text), 0)
    assert all(0 <= edited.back(at) < len(source) for at in range(len(edited.text)))
    edited.text.encode("utf-8")


@pytest.mark.parametrize("between", ["\u200b", "\u200c", "\u200d", "\u2060", "\u034f", "\u3164", " ", "\ufe0f"])
def test_selectors_carry_no_message_whatever_stands_between(between):
    hidden = "hi 😊" + "".join(chr(0xFE00 + n % 16) + between for n in range(40))
    seen = clean(hidden)[0].text
    assert sum("\ufe00" <= c <= "\ufe0f" for c in seen) == 1
    assert strip_hidden(hidden) == seen


ODD = st.text(
    st.sampled_from("a \u00ad\n\u200b\u200c\u200d\ufe00\ufe0f\U000e0100❤😀\u061cاकអ漢\ufeff\u034fﻻ⽅\U000e0041\u20e3")
)


@given(ODD)
@example("a\u200b\ufe0f\u200d😀")
def test_what_was_cleaned_is_clean(text):
    once = clean(text)[0].text
    assert clean(once)[0].text == strip_hidden(once) == once
    assert strip_hidden(strip_hidden(text)) == strip_hidden(text)
