"""What is kept of a chunk's metadata so that any engine can match a filter exactly.

Engines differ in the types, lengths and key names they can match (Qdrant takes no float, no quote
in a key, and True for 1). Digests of keys and values, and float64 under digests of keys, need none
of that.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from m3rag.store.protocol import Scalar
from m3rag.types import Metadata

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:Z|([+-])(\d\d):?(\d\d))?)?", re.ASCII
)


def terms(metadata: Metadata) -> list[str]:
    """The keywords of all values that a condition `AnyOf` can find in some metadata, sorted."""
    found: set[str] = set()
    for key, value in metadata.items():
        found.update(term(key, element) for element in elements_of(value) if isinstance(element, Scalar))
    return sorted(found)


def keys(metadata: Metadata) -> list[str]:
    """The keywords of all keys that a condition `Exists` can find in some metadata, sorted."""
    return sorted(map(key_digest, metadata))


def numbers(metadata: Metadata) -> dict[str, list[float]]:
    """All that a `Range` of numbers can find: digest of the key -> float64 values, sorted."""
    return _comparable(metadata, number_of)


def times(metadata: Metadata) -> dict[str, list[float]]:
    """All that a `Range` of times can find: digest of the key -> seconds since 1970 in UTC, sorted."""
    return _comparable(metadata, time_of)


def term(key: str, value: Scalar) -> str:
    """One keyword for one metadata value: 32 hexadecimal digits, equal exactly where the values are."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return _digest([key, number])


def document_term(document_id: str) -> str:
    """One keyword for the document of a chunk, which no metadata value has: 32 hexadecimal digits."""
    return _digest(["document", document_id, None])


def key_digest(key: str) -> str:
    """One keyword for one metadata key: 32 hexadecimal digits, which fit wherever a field may be named."""
    return _digest([key])


def elements_of(value: object) -> Sequence[object]:
    """What a condition looks at: the elements of a list, else the value itself."""
    return value if isinstance(value, list | tuple) else [value]


def number_of(value: object) -> float | None:
    """An int or float as float64, None for anything else (a bool is no number)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    largest = sys.float_info.max
    return float(max(-largest, min(largest, value))) if isinstance(value, int) else float(value)


def time_of(value: object) -> float | None:
    """The instant of an ISO 8601 string in the extended form, seconds since 1970 in UTC; else None."""
    found = _ISO.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    fraction, sign = found[7], found[8]
    year, month, day, hour, minute, second, zone_hours, zone_minutes = (
        int(found[i] or 0) for i in (*range(1, 7), 9, 10)
    )
    if zone_hours > 23 or zone_minutes > 59:
        return None
    microsecond = int((fraction or "")[:6].ljust(6, "0"))
    try:
        local = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC)
    except ValueError:  # such as the 30th of February
        return None
    ahead = timedelta(hours=zone_hours, minutes=zone_minutes) * (-1 if sign == "-" else 1)
    return (local - _EPOCH - ahead).total_seconds()


def seconds_of(value: date) -> float:
    """The instant of a datetime (without a zone: in UTC) or of a date's midnight, seconds since 1970 in UTC."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return ((value if value.utcoffset() is not None else value.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


def is_unicode(text: str) -> bool:
    """Whether a text can be stored: file names that are not UTF-8 arrive as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object, *, length: int = 80) -> str:
    """A value for an error message, cut to a length; Python refuses to write ints of many digits, and deep nests."""
    try:
        return f"{value!r:.{length}}"
    except ValueError:
        return f"a {type(value).__name__} with a number too large to write"
    except RecursionError:
        return f"a {type(value).__name__} nested too deep to write"


def _comparable(metadata: Metadata, comparable: Callable[[object], float | None]) -> dict[str, list[float]]:
    found = {}
    for key, value in metadata.items():
        values = {number for number in map(comparable, elements_of(value)) if number is not None}
        if values:
            found[key_digest(key)] = sorted(values)
    return found


def _digest(parts: list[Any]) -> str:
    # JSON keeps the parts apart, and escapes the lone surrogates that are never stored but may be asked for.
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
