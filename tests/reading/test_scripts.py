import time

import pytest

from m3rag.reading.scripts import fraction, index, lowered, power, raised, settled, subscript, superscript


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        ("6", "⁶"),
        ("-6", "⁻⁶"),
        ("n+1", "ⁿ⁺¹"),
        ("1,2", "¹,²"),
        ("2+", "²⁺"),
        ("nd", "nd"),
        ("[1]", "[1]"),
        ("a", "a"),
        ("044 123 45 67", "044 123 45 67"),
        ("1, 2", "¹, ²"),
        ("", ""),
    ],
)
def test_numbers_are_raised_and_words_stay(text, raised):
    assert superscript(text) == raised


def test_numbers_are_lowered_and_words_stay():
    assert [subscript(text) for text in ("2", "max", "n-1")] == ["₂", "max", "ₙ₋₁"]


def test_parts_of_an_equation_have_a_sign_of_their_own():
    assert [power("2"), power("x"), power("x+1"), power(""), index("i"), index("i=1")] == [
        "²", "^x", "^(x+1)", "", "_i", "_(i=1)",
    ]  # fmt: skip


def test_a_fraction_is_no_part_of_the_number_beside_it():
    assert settled(f"2{fraction('1', '25')}") == "2 1/25"
    assert settled(f"({fraction('a+b', fraction('1', '2'))})") == "((a+b)/(1/2))"


def test_neighbours_of_one_alignment_are_one_text():
    assert settled(f"2{raised('n')}{raised('d')} x{raised('1')}{lowered('2')}") == "2nd x¹₂"
    assert settled(f"a{raised('1' + raised('2'))} 1{raised('1/2')}") == "a1² 1 1/2"


def test_long_texts_take_no_time():
    begun = time.perf_counter()
    superscript("1 " * 500_000 + "x")
    settled("\x1d" * 1_000_000)
    settled("\x1e1\x1c" * 300_000 + "\x1e" * 300_000)
    superscript("1" + " " * 1_000_000)
    assert time.perf_counter() - begun < 5
