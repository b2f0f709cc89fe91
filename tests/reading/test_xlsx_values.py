import pytest

from m3rag.reading.xlsx_values import Meaning, digits, meaning, shown


@pytest.mark.parametrize(
    ("number", "code", "expected"),
    [
        (0, "", Meaning.NUMBER),
        (14, "", Meaning.MOMENT),
        (46, "", Meaning.DURATION),
        (9, "", Meaning.PERCENT),
        (164, "General", Meaning.NUMBER),
        (164, "GENERAL", Meaning.NUMBER),
        (164, "G/標準", Meaning.NUMBER),
        (164, '#,##0.00" days"', Meaning.NUMBER),
        (164, "[Red]0.0%;-0.0%", Meaning.PERCENT),
        (164, "[$-409]d-mmm-yy;@", Meaning.MOMENT),
        (164, "yyyy\\年m\\月", Meaning.MOMENT),
        (164, "[h]:mm", Meaning.DURATION),
        (164, "_-* #,##0.00 [$EUR]_-", Meaning.NUMBER),
    ],
)
def test_formats_by_number_and_pattern(number, code, expected):
    assert meaning(number, code) is expected


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("45413", Meaning.MOMENT, "2024-05-01"),
        ("45413.5625", Meaning.MOMENT, "2024-05-01T13:30:00"),
        ("1", Meaning.MOMENT, "1900-01-01"),
        ("61", Meaning.MOMENT, "1900-03-01"),
        ("0.5", Meaning.MOMENT, "12:00:00"),
        ("1e300", Meaning.MOMENT, "1e+300"),
        ("-9e9", Meaning.MOMENT, "-9000000000"),
        ("1.25", Meaning.DURATION, "1 day, 6:00:00"),
        ("0.3333", Meaning.PERCENT, "33.33%"),
        ("1E-3", Meaning.NUMBER, "0.001"),
        ("no number", Meaning.NUMBER, "no number"),
        ("nan", Meaning.MOMENT, "nan"),
    ],
)
def test_numbers_as_a_person_reads_them(text, kind, expected):
    assert shown(text, kind, from_1904=False) == expected


def test_days_may_be_counted_from_1904():
    assert shown("43951", Meaning.MOMENT, from_1904=True) == "2024-05-01"


def test_a_format_of_zeros_fills_a_number_up():
    assert [digits(code) for code in ("00000", "0", "0.00", "", "0" * 31)] == [5, 0, 0, 0, 0]
    assert [shown(n, Meaning.NUMBER, from_1904=False, digits=5) for n in ("1234", "123456", "-1")] == [
        "01234",
        "123456",
        "-1",
    ]
