"""JSON and JSON lines: a value is a line with its path, a record a paragraph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from m3rag.errors import ReadError
from m3rag.reading.content import Content
from m3rag.reading.decoding import Decoded, decode
from m3rag.types import Heading

MAX_DEPTH = 200
NAMES = ("title", "headline", "subject", "name")
"""The fields that name a record, the first that it has."""

_NAME_CHARACTERS = 200
_BAD_LINES_NAMED = 5


class _Object(list[tuple[str, Any]]):
    """The pairs of an object, those whose key stands twice included."""


Line: TypeAlias = tuple[str, str]


def read_json(data: bytes) -> Content:
    """Read JSON.

    Args:
        data: The file's bytes.

    Returns:
        A line `key.inner: value` for each value, `list[0].key` within lists, a list of plain values
        in one line. Each object of a list is a paragraph; one of the outermost list that has a
        title (see `NAMES`) begins with it, as a heading. Empty values and null are left out.
        Numbers are as written.

    Raises:
        ReadError: The bytes are no JSON, the place is named, or nested deeper than 200.
    """
    decoded = decode(data)
    try:
        value = _loads(decoded.text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or (lines := _json_lines(decoded)) is None:
            place = f"line {error.lineno}, column {error.colno}: {error.msg}"
            raise ReadError(f"is not valid JSON ({place}); mend it there") from error
        return lines
    records = value if isinstance(value, list) and not isinstance(value, _Object) else [value]
    return _content(records, decoded)


def read_json_lines(data: bytes) -> Content:
    """Read JSON lines.

    Args:
        data: The file's bytes.

    Returns:
        As `read_json` for a list with a record for each line; lines that are no JSON are left out
        and named in the warnings.

    Raises:
        ReadError: No line is JSON, or one is nested deeper than 200.
    """
    return _json_lines(decode(data)) or read_json(data)


def _json_lines(decoded: Decoded) -> Content | None:
    records, bad = [], []
    # Not splitlines: U+2028 may stand within a string.
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if line.strip():
            try:
                records.append(_loads(line))
            except json.JSONDecodeError:
                bad.append(number)
    if len(bad) > len(records):
        return None
    named = ", ".join(map(str, bad[:_BAD_LINES_NAMED])) + (", ..." if len(bad) > _BAD_LINES_NAMED else "")
    told = (f"{len(bad)} lines are no JSON and left out: {named}",) if bad else ()
    return _content(records, decoded, *told)


def _loads(text: str) -> Any:
    try:
        # As text, numbers stay as written, however long; NaN and Infinity too.
        return json.loads(
            text.lstrip("\ufeff"), object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str
        )
    except RecursionError as error:
        raise ReadError(f"is JSON nested deeper than {MAX_DEPTH}; flatten it") from error


def _content(records: Sequence[Any], decoded: Decoded, *told: str) -> Content:
    pieces: list[str] = []
    headings: list[Heading] = []
    length = 0
    for record in records:
        name, lines = _record(record, named=len(records) > 1)
        if not lines:
            continue
        paragraph = "\n".join(f"{path}: {value}" if path and value else path or value for path, value in lines)
        if pieces:
            length += 2
        if name:
            headings.append(Heading(name, 1, length, length + len(paragraph.partition("\n")[0])))
        pieces.append(paragraph)
        length += len(paragraph)
    text = "\n\n".join(pieces)
    metadata = {"encoding": decoded.encoding}
    return Content(text, headings=tuple(headings), metadata=metadata, warnings=(*decoded.warnings, *told))


def _record(record: Any, *, named: bool) -> tuple[str, list[Line]]:
    """The name of a record, empty if it has none, and its lines, that of the name first."""
    lines = list(_flat(record, "", 0))
    if not named or not isinstance(record, _Object):
        return "", lines
    for key in NAMES:
        for at, (path, value) in enumerate(lines):
            if path.lower() == key and len(value) <= _NAME_CHARACTERS and "\n" not in value:
                return value, [lines[at], *lines[:at], *lines[at + 1 :]]
    return "", lines


def _flat(value: Any, path: str, depth: int) -> Iterator[Line]:
    if depth > MAX_DEPTH:
        raise ReadError(f"is JSON nested deeper than {MAX_DEPTH}; flatten it")
    if isinstance(value, _Object):
        for key, inner in value:
            yield from _flat(inner, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        yield from _flat_list(value, path, depth)
    elif shown := _shown(value):
        yield path, shown


def _flat_list(values: list[Any], path: str, depth: int) -> Iterator[Line]:
    plain = [_shown(v) for v in values if not isinstance(v, list)]
    if len(plain) == len(values) and not any("\n" in v for v in plain):
        if any(plain):
            yield path, ", ".join(filter(None, plain))
        return
    for at, inner in enumerate(values):
        if at and isinstance(inner, _Object):
            yield "", ""
        yield from _flat(inner, f"{path}[{at}]", depth + 1)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("\r\n", "\n").strip()
