"""Raised and lowered characters and fractions in a line of text: 10<sup>6</sup> is not 106, and 1 over 25 not 125."""

from __future__ import annotations

import re

_SIGNS = "0123456789+-\u2212=()n"
_SUPERSCRIPTS = str.maketrans(_SIGNS, "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_SUBSCRIPTS = str.maketrans(_SIGNS, "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₙ")
# Exponents, charges, indices and marks of notes. Letters stay (2nd, Mme), and so does [1], which stands apart.
_NUMERIC = re.compile(r"(?=[^-+\u2212n\d]*[-+\u2212n\d])[-+\u2212=()n\d.,;*\s]+", re.ASCII)
# XML cannot hold these: the edge of a fraction, and where raised and lowered text begins and ends.
_EDGE, _RAISED, _LOWERED, _LEVEL = "\x1d", "\x1e", "\x1f", "\x1c"
_ALIGNED = re.compile(r"([\x1e\x1f])([^\x1c\x1e\x1f]*(?:\x1c\1[^\x1c\x1e\x1f]*)*)\x1c")
_MARKS = re.compile(r"[\x1c-\x1f]")
_BETWEEN = re.compile(rf"(?<=\w){_EDGE}+(?=\w)")
_APART = re.compile(r"\d\s+\d", re.ASCII)  # a telephone number in small print
_DIVIDED = re.compile(r"\s*\d+\s*[/\u2044]\s*\d+\s*")
_TOKEN = re.compile(r"\w+(?:[.,]\w+)*|.|")


def superscript(text: str) -> str:
    """Raised text: digits and signs by Unicode's superscripts, as in 10⁶ or a mark of a note¹²; words as they are."""
    return text.translate(_SUPERSCRIPTS) if _is_numeric(text) else text


def subscript(text: str) -> str:
    """Lowered text: digits and signs by Unicode's subscripts, as in CO₂; words as they are."""
    return text.translate(_SUBSCRIPTS) if _is_numeric(text) else text


def is_fraction(text: str) -> bool:
    """Whether text is a fraction such as `1/2`, which is no part of the digits beside it."""
    return _DIVIDED.fullmatch(text) is not None


def raised(text: str) -> str:
    """A run of raised text, between marks: `settled` writes it together with the runs beside it."""
    return f"{_RAISED}{text}{_LEVEL}"


def lowered(text: str) -> str:
    """A run of lowered text, as `raised`."""
    return f"{_LOWERED}{text}{_LEVEL}"


def power(text: str) -> str:
    """What stands raised in an equation: `²`, `^x` or `^(x+1)`."""
    raised = superscript(text.strip())
    return raised if raised != text.strip() else f"^{grouped(text)}" if text.strip() else ""


def index(text: str) -> str:
    """What stands lowered in an equation: `₂`, `_x` or `_(x+1)`."""
    lowered = subscript(text.strip())
    return lowered if lowered != text.strip() else f"_{grouped(text)}" if text.strip() else ""


def fraction(over: str, under: str) -> str:
    """A fraction on one line: `1/25`, `(a+b)/2`, between marks that `settled` takes away."""
    return f"{_EDGE}{grouped(over)}/{grouped(under)}{_EDGE}"


def settled(text: str) -> str:
    """A text without marks: what is raised or lowered is written so, and fractions are set apart.

    Neighbouring runs count as one (2nd may be three of them), and 2 and 1/25 are not 21/25.
    """
    return _MARKS.sub("", _BETWEEN.sub(" ", _ALIGNED.sub(_scripted, text)))


def _scripted(found: re.Match[str]) -> str:
    text = _MARKS.sub("", found[2])
    if is_fraction(text):
        return f"{_EDGE}{text}{_EDGE}"
    return superscript(text) if found[1] == _RAISED else subscript(text)


def _is_numeric(text: str) -> bool:
    return _NUMERIC.fullmatch(text) is not None and _APART.search(text) is None


def grouped(text: str) -> str:
    """A part of an equation, in parentheses if it is longer than a number or a name."""
    text = text.strip()
    return text if _TOKEN.fullmatch(text) else f"({text})"
