"""Raised and lowered characters and fractions in a line of text: 10<sup>6</sup> is not 106, and 1 over 25 not 125."""

from __future__ import annotations

import re

_SIGNS = "0123456789+-\u2212=()n"
_SUPERSCRIPTS = str.maketrans(_SIGNS, "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_SUBSCRIPTS = str.maketrans(_SIGNS, "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₙ")
# Exponents, charges, indices and marks of notes. Letters stay (2nd, Mme), and so does [1], which stands apart.
_NUMERIC = re.compile(r"(?=[^-+\u2212n\d]*[-+\u2212n\d])[-+\u2212=()n\d.,;*\s]+", re.ASCII)
_EDGE = "\x1d"  # of a fraction; XML cannot hold it
_BETWEEN = re.compile(rf"(?<=\w){_EDGE}+(?=\w)")
_TOKEN = re.compile(r"\w+(?:[.,]\w+)*|.|")


def superscript(text: str) -> str:
    """Raised text: digits and signs by Unicode's superscripts, as in 10⁶ or a mark of a note¹²; words as they are."""
    return text.translate(_SUPERSCRIPTS) if _NUMERIC.fullmatch(text) else text


def subscript(text: str) -> str:
    """Lowered text: digits and signs by Unicode's subscripts, as in CO₂; words as they are."""
    return text.translate(_SUBSCRIPTS) if _NUMERIC.fullmatch(text) else text


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
    """A text with fractions set apart from letters and digits beside them, so that 2 and 1/25 are not 21/25."""
    return _BETWEEN.sub(" ", text).replace(_EDGE, "")


def grouped(text: str) -> str:
    """A part of an equation, in parentheses if it is longer than a number or a name."""
    text = text.strip()
    return text if _TOKEN.fullmatch(text) else f"({text})"
