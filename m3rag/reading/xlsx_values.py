"""What a number in a workbook means by its format: a day, a time, a percentage (ECMA-376 Part 1, 18.8.30)."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from enum import Enum


class Meaning(Enum):
    """What the format makes of a number."""

    NUMBER = "number"
    PERCENT = "percent"
    MOMENT = "moment"
    DURATION = "duration"


# Formats that every program knows by their number, East Asian dates among them.
_DATES = frozenset({*range(14, 23), *range(27, 37), 45, 47, *range(50, 59)})
_PERCENTS, _ELAPSED = frozenset({9, 10}), 46
_QUOTED = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_DURATION = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)
# What leaves a number as it is, in capitals too and as Japanese programs call it.
_GENERAL = re.compile(r"general|standard|G/\w+", re.IGNORECASE)
_ZEROS = re.compile(r"0{2,30}")  # a number of more is of a file that wants to grow
_LETTERS = re.compile(r"[dmhysg]", re.IGNORECASE)
_EPOCH, _EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)
FIRST_OF_MARCH_1900 = 60  # Excel counts a day before it that never was


def meaning(number: int, code: str) -> Meaning:
    """What a format means.

    Args:
        number: Its id; below 164 it is known to every program.
        code: Its pattern, empty where the file gives none.
    """
    if number in _DATES and not code:
        return Meaning.MOMENT
    if number in _PERCENTS and not code:
        return Meaning.PERCENT
    first = _QUOTED.sub("", code).split(";")[0]
    if _DURATION.search(first) or (number == _ELAPSED and not code):
        return Meaning.DURATION
    if "%" in first:
        return Meaning.PERCENT
    return Meaning.MOMENT if _LETTERS.search(_GENERAL.sub("", first)) else Meaning.NUMBER


def digits(code: str) -> int:
    """How many digits a format of nothing but zeros (postal codes, article numbers) gives a number; 0 for any other."""
    return len(code) if _ZEROS.fullmatch(code) else 0


def shown(text: str, format_meaning: Meaning, *, from_1904: bool, digits: int = 0) -> str:
    """A number as a person reads it.

    Args:
        text: As stored.
        format_meaning: What its format makes of it.
        from_1904: Whether days are counted from 1904 instead of 1900.
        digits: The least number of them, by leading zeros.

    Returns:
        Days and times in ISO 8601, percentages with their sign, numbers with up to 15 digits, as
        spreadsheets compute and show them; the text itself where it is no number.
    """
    try:
        value = float(text)
    except ValueError:
        return text
    try:
        if format_meaning is Meaning.MOMENT:
            return _moment(value, from_1904=from_1904)
        if format_meaning is Meaning.DURATION:
            return str(timedelta(seconds=round(value * 86_400)))
    except (OverflowError, ValueError):  # beyond the year 9999 it is shown as #####
        return _number(value)
    if format_meaning is Meaning.PERCENT:
        return f"{_number(value * 100)}%"
    return f"{value:0{digits}.0f}" if digits and value >= 0 else _number(value)


def _number(value: float) -> str:
    return f"{value:.15g}"


def _moment(value: float, *, from_1904: bool) -> str:
    if 0 <= value < 1 and not from_1904:
        return (datetime.min + timedelta(seconds=round(value * 86_400))).time().isoformat()
    if not from_1904 and value < FIRST_OF_MARCH_1900:
        value += 1
    moment = (_EPOCH_1904 if from_1904 else _EPOCH) + timedelta(seconds=round(value * 86_400))
    return (moment.date() if moment.time() == time() else moment).isoformat()
