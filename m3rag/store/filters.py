"""What a `Filter` means, and how what it asks becomes values that any engine can match exactly.

A filter is a mapping in the operator style known from MongoDB and Chroma. Its entries must all hold:

- `{"lang": "de"}` or `{"lang": {"$eq": "de"}}`: the metadata value under the key equals it.
- `{"lang": ["de", "zh"]}` or `{"lang": {"$in": ["de", "zh"]}}`: it equals one of them; `[]`: nothing does.
- `$ne`, `$nin`: exactly the negation of `$eq`, `$in`, so that a missing key passes.
- `{"year": {"$gte": 2001, "$lt": 2010}}`: the value is within all bounds (`$gt $gte $lt $lte`).
- `{"year": {"$exists": True}}`: the key is there, whatever its value (null, `[]`); `False`: it is not.
- `{"$and": [f, ...]}`, `{"$or": [f, ...]}`, `{"$not": f}` of filters; `$or` of none passes nothing.

Where the metadata value is a list, `$eq`, `$in` and a range hold when one element satisfies them (one
and the same element all bounds of the range).

The key `document_id` is the chunk's document, whatever its metadata say; it is compared with text
alone and takes no range. Where the metadata have no `source`, `page` or `headings` of their own, these
are the chunk's document, page and path of headings (`page` only where there are pages). A key that
begins with `$` is an operator and cannot be filtered on.

- Equality is that of JSON with numbers by value: `1` equals `1.0`, not `True` and not `"1"`. It is
  exact for ints of any size.
- Ranges compare numbers with numbers (a bool is no number), as float64: ints beyond 2**53 are
  rounded, and those beyond float64 count as the largest float64.
- A datetime, in ranges as in `$eq` or `$in`, compares as an instant with metadata strings that are
  ISO 8601 in the extended form: `2024-05-01`, `2024-05-01T12:30`, `2024-05-01 12:30:59.25+02:00`,
  `...Z`. What names no zone is UTC, a date is its midnight. Instants are float64 seconds, exact to
  the microsecond from 1685 to 2254. A range takes such a string as a bound, too (a filter may come
  from JSON); equality with a string is always that of the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypeAlias

from m3rag.errors import IndexMismatchError, InputError
from m3rag.store.protocol import FORMAT, Filter, Manifest, Scalar
from m3rag.store.terms import elements_of, is_unicode, key_digest, number_of, seconds_of, shown, term, time_of
from m3rag.types import Chunk, Metadata

DOCUMENT_ID = "document_id"
"""The key that stands for the chunk's document, whatever its metadata say."""

PLACE = ("source", "page", "headings")
"""The keys under which a filter finds where a chunk stands, unless its metadata have them."""

MAX_DEPTH = 30  # levels of `$and`, `$or`, `$not`: engines recurse on a small stack

Kind = Literal["number", "time"]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The value under a key, or an element of it, equals one of some values; no values: nothing passes.

    A datetime is never among the values: equality with it is a `Range` from the instant to itself.
    Under the key `document_id` the values are strings that a document's id can be.
    """

    key: str
    values: tuple[Scalar, ...]

    @property
    def terms(self) -> list[str]:
        """The keywords of which a chunk's `terms` hold at least one (not for `document_id`)."""
        return [term(self.key, value) for value in self.values]


@dataclass(frozen=True, slots=True)
class Range:
    """The value under a key, or one element of it, is of a kind and within all bounds.

    `number`: an int or float as float64. `time`: an ISO 8601 string as seconds since 1970 in UTC.
    At least one bound is given. The key is never `document_id`.
    """

    key: str
    kind: Kind
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @property
    def field(self) -> str:
        """The field of a chunk's payload that holds what is compared: `numbers` or `times`."""
        return "numbers" if self.kind == "number" else "times"

    @property
    def digest(self) -> str:
        """The name of the key within that field."""
        return key_digest(self.key)

    def holds(self, value: float) -> bool:
        """Whether one number, or one instant, is within all bounds."""
        return (
            (self.gt is None or value > self.gt)
            and (self.gte is None or value >= self.gte)
            and (self.lt is None or value < self.lt)
            and (self.lte is None or value <= self.lte)
        )


@dataclass(frozen=True, slots=True)
class Exists:
    """The metadata have the key, whatever its value. The key is never `document_id`."""

    key: str

    @property
    def digest(self) -> str:
        """The keyword that is among a chunk's `keys`."""
        return key_digest(self.key)


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class And:
    """All conditions hold; of none: every chunk passes."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the conditions holds; of none: no chunk passes."""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = AnyOf | Range | Exists | Not | And | Or

EVERYTHING = And(())
"""The condition of an empty filter: every chunk passes."""


def matches(chunk: Chunk, filter: Filter | None) -> bool:
    """Whether a chunk passes: the definition that the stores' own engines are tested against.

    Raises:
        InputError: If the filter makes no sense.
    """
    return holds(parse_filter(filter), chunk)


def filterable(chunk: Chunk) -> Metadata:
    """What a filter looks at beside the document's id: where the chunk stands, and its metadata over that."""
    place: dict[str, Any] = {"source": chunk.document_id, "headings": list(chunk.headings)}
    if chunk.page is not None:
        place["page"] = chunk.page
    return {**place, **chunk.metadata}


def holds(condition: Condition, chunk: Chunk) -> bool:
    """Whether a condition holds for a chunk."""
    match condition:
        case And(conditions):
            return all(holds(one, chunk) for one in conditions)
        case Or(conditions):
            return any(holds(one, chunk) for one in conditions)
        case Not(inner):
            return not holds(inner, chunk)
        case Exists(key):
            return key in filterable(chunk)
        case AnyOf(key, values):
            held = [chunk.document_id] if key == DOCUMENT_ID else elements_of(filterable(chunk).get(key))
            return any(_same(element, value) for element in held for value in values)
        case Range(key, kind):
            comparable = number_of if kind == "number" else time_of
            found = (comparable(element) for element in elements_of(filterable(chunk).get(key)))
            return any(value is not None and condition.holds(value) for value in found)


def parse_filter(filter: Filter | None, *, of: Manifest | None = None) -> Condition:
    """The condition that a filter states.

    Args:
        filter: None lets everything pass.
        of: The manifest of the collection that is asked.

    Returns:
        `EVERYTHING` for None, an empty filter, and `$and` of empty ones.

    Raises:
        InputError: If an operator is unknown, or a value cannot be compared.
        IndexMismatchError: If the collection was written in a format that cannot answer.
    """
    condition = EVERYTHING if filter is None else _parse(filter, depth=0)
    if of is not None and of.format < FORMAT:
        _check_format(condition, of)
    return condition


def _check_format(condition: Condition, manifest: Manifest) -> None:
    match condition:
        case And(conditions) | Or(conditions):
            for one in conditions:
                _check_format(one, manifest)
        case Not(inner):
            _check_format(inner, manifest)
        case AnyOf(key) | Range(key) | Exists(key):
            unknown = f"{key!r} but in the metadata" if key in PLACE else "ranges, times and $exists"
            if key in PLACE or (manifest.format == 1 and not isinstance(condition, AnyOf)):
                raise IndexMismatchError(
                    f"filter {key!r}: the index is of format {manifest.format} (m3rag {manifest.m3rag_version}), which "
                    f"knows no {unknown}: make it anew with m3rag rebuild, or ingest into a new index"
                )


def _parse(filter: object, *, depth: int) -> Condition:
    if not isinstance(filter, Mapping):
        raise InputError(f"a filter must be a mapping such as {{'lang': 'de'}}, got {shown(filter, length=200)}")
    if depth > MAX_DEPTH:
        raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep: flatten it")
    found = []
    for key, value in filter.items():
        if not isinstance(key, str):
            raise InputError(f"filter {key!r}: keys are strings, got a {type(key).__name__}")
        if key in ("$and", "$or"):
            inner = [_parse(one, depth=depth + 1) for one in _listed(key, value)]
            found.append(_all(inner) if key == "$and" else Or(tuple(inner)))
        elif key == "$not":
            found.append(Not(_parse(value, depth=depth + 1)))
        elif key.startswith("$"):
            raise InputError(
                f"filter {key!r}: unknown operator; there are $and, $or and $not between filters, "
                f"and {', '.join(_OPERATORS)} below a key, such as {{'year': {{'$gte': 2001}}}}"
            )
        else:
            found.append(_of_key(key, value))
    return _all(found)


def _all(conditions: Iterable[Condition]) -> Condition:
    flat: list[Condition] = []
    for one in conditions:
        flat.extend(one.conditions if isinstance(one, And) else [one])
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def _of_key(key: str, value: object) -> Condition:
    if not isinstance(value, Mapping):
        return _any_of(key, _values(key, value) if _is_list(value) else [value])
    if not value:
        raise InputError(f"filter {key!r}: {{}} names no operator; give one of {', '.join(_OPERATORS)}")
    found: list[Condition] = []
    for operator, operand in value.items():
        if operator not in _OPERATORS:
            raise InputError(
                f"filter {key!r}: unknown operator {operator!r}, one of {', '.join(_OPERATORS)} "
                "(and {'$not': filter} around a whole filter)"
            )
        if operator in ("$eq", "$ne", "$in", "$nin"):
            equal = _any_of(key, _values(key, operand) if operator in ("$in", "$nin") else [operand])
            found.append(equal if operator in ("$eq", "$in") else Not(equal))
        elif operator == "$exists":
            found.append(_exists(key, operand))
    bounds = {operator[1:]: operand for operator, operand in value.items() if operator in _BOUNDS}
    return _all([*found, _range(key, bounds)] if bounds else found)


_BOUNDS = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_BOUNDS, "$exists")


def _any_of(key: str, values: Iterable[Any]) -> Condition:
    scalars: list[Scalar] = []
    instants: list[Condition] = []
    for value in values:
        if isinstance(value, date) and key != DOCUMENT_ID:
            seconds = seconds_of(value)
            instants.append(Range(key, "time", gte=seconds, lte=seconds))
        elif not isinstance(value, Scalar) or not _is_writable(value):
            raise InputError(
                f"filter {key!r}: cannot compare with {shown(value)}; "
                "give a string, a finite number, a bool, a datetime or a list of these"
            )
        elif key != DOCUMENT_ID:
            scalars.append(value)
        elif not isinstance(value, str):
            raise InputError(f"filter {key!r}: a document's id is text, got {shown(value)}: give {str(value)!r}")
        elif is_unicode(value):
            scalars.append(value)
    if not instants:
        return AnyOf(key, tuple(scalars))
    either = (AnyOf(key, tuple(scalars)), *instants) if scalars else tuple(instants)
    return either[0] if len(either) == 1 else Or(either)


def _range(key: str, bounds: Mapping[str, object]) -> Condition:
    if key == DOCUMENT_ID:
        raise InputError(f"filter {key!r}: a document's id is text, it takes no range; use $in with the ids")
    kinds: dict[str, tuple[Kind, float]] = {}
    for name, value in bounds.items():
        number = number_of(value)
        seconds = seconds_of(value) if isinstance(value, date) else time_of(value)
        if number is not None and math.isfinite(number):
            kinds[name] = ("number", number)
        elif seconds is not None:
            kinds[name] = ("time", seconds)
        else:
            raise InputError(
                f"filter {key!r}: ${name} cannot compare with {shown(value)}; "
                "give a finite number, a datetime, or an ISO 8601 string such as '2024-05-01T12:30:00Z'"
            )
    kind = next(iter(kinds.values()))[0]
    if any(other != kind for other, _ in kinds.values()):
        raise InputError(
            f"filter {key!r}: one bound is a number and one a time, no value is between them: {shown(bounds)}"
        )
    return Range(key, kind, **{name: value for name, (_, value) in kinds.items()})


def _exists(key: str, wanted: object) -> Condition:
    if not isinstance(wanted, bool):
        raise InputError(f"filter {key!r}: $exists takes True or False, got {shown(wanted)}")
    there: Condition = EVERYTHING if key == DOCUMENT_ID else Exists(key)
    return there if wanted else Not(there)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence | Set) and not isinstance(value, str | bytes | bytearray)


def _values(key: str, value: object) -> list[Any]:
    if not _is_list(value):
        raise InputError(f"filter {key!r}: $in and $nin take a list of values, got {shown(value)}")
    return list(value)  # type: ignore[call-overload,no-any-return]


def _listed(operator: str, value: object) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InputError(f"filter {operator!r}: takes a list of filters, got {shown(value, length=200)}")
    return list(value)


def _is_writable(value: Scalar) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    try:
        return bool(json.dumps(value))
    except ValueError:  # an int of more digits than Python writes, which no metadata can hold
        return False


def _same(element: object, value: Scalar) -> bool:
    # In Python True == 1, which a filter on a count of 1 must not find; and one of numpy's numbers is compared with
    # every element of a list.
    return (
        not isinstance(element, list)
        and isinstance(element, bool) == isinstance(value, bool)
        and bool(element == value)
    )
