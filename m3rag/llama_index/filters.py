"""LlamaIndex's MetadataFilters as m3rag's filters, and as a test of one chunk for what these cannot say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from m3rag.errors import InputError
from m3rag.store.filters import DOCUMENT_ID, filterable, holds, parse_filter

if TYPE_CHECKING:
    from m3rag.store.protocol import Filter
    from m3rag.types import Chunk

DOCUMENT_KEYS = (DOCUMENT_ID, "doc_id", "ref_doc_id")
"""All of LlamaIndex's stores write the document's id under these keys."""

_SIMPLE = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.CONTAINS: "$eq",
}


@dataclass(frozen=True)
class Condition:
    """What chunks must fulfil.

    Attributes:
        filter: What the store can test; empty for nothing.
        exact: Whether that is all of it. Else chunks that pass it must pass `test` too.
        test: Whether one chunk fulfils all of it.
    """

    filter: Filter
    exact: bool
    test: Callable[[Chunk], bool]


def condition_of(filters: MetadataFilters | Filter | None) -> Condition:
    """The condition that filters state.

    Where a metadata value is a list, EQ, IN and the ranges look at its elements, as all of m3rag does; so CONTAINS
    is EQ, and ANY is IN. A missing key passes NE, NIN and IS_EMPTY alone. IS_EMPTY: missing, null, `""` or `[]`.
    TEXT_MATCH: a string, or one of a list, holds the text. NOT: none of the filters holds. No filters: all pass.

    Args:
        filters: LlamaIndex's, or a dict of m3rag's own operators.

    Raises:
        InputError: If an operator cannot be used with its value.
    """
    if filters is None:
        return _stored({})
    if isinstance(filters, Mapping):
        return _stored(filters)
    if not isinstance(filters, MetadataFilters):
        raise InputError(
            f"filters is a {type(filters).__name__}, must be LlamaIndex's MetadataFilters, or a dict such as "
            "{'document_id': ['a.pdf', 'b.pdf']}"
        )
    parts = [condition_of(one) if isinstance(one, MetadataFilters) else _of(one) for one in filters.filters]
    return _joined(parts, filters.condition or FilterCondition.AND)


def both(first: Condition, second: Condition) -> Condition:
    """The condition that holds where two do."""
    return _joined([first, second], FilterCondition.AND)


def _joined(parts: Sequence[Condition], how: FilterCondition) -> Condition:
    if not parts:
        return _stored({})
    exact = all(part.exact for part in parts)
    tests = [part.test for part in parts]
    if how is FilterCondition.AND:
        said = [part.filter for part in parts if part.filter]
        joined: Filter = {} if not said else said[0] if len(said) == 1 else {"$and": said}
        return Condition(joined, exact, lambda chunk: all(test(chunk) for test in tests))
    either: Filter = {"$or": [part.filter for part in parts]} if exact else {}
    if how is FilterCondition.OR:
        return Condition(either, exact, lambda chunk: any(test(chunk) for test in tests))
    if how is FilterCondition.NOT:
        return Condition({"$not": either} if exact else {}, exact, lambda chunk: not any(t(chunk) for t in tests))
    raise InputError(f"unknown filter condition {how!r}: and, or, not")


def _stored(filter: Filter) -> Condition:
    return Condition(filter, True, partial(holds, parse_filter(filter)))


def _of(one: MetadataFilter) -> Condition:
    key = DOCUMENT_ID if one.key in DOCUMENT_KEYS else one.key
    if one.operator in _SIMPLE:
        return _stored({key: {_SIMPLE[one.operator]: one.value}})
    if one.operator is FilterOperator.ALL:
        if not isinstance(one.value, list) or not one.value:
            raise InputError(f"filter {one.key!r}: operator 'all' takes a list of values, got {one.value!r}")
        return _stored({"$and": [{key: {"$eq": value}} for value in one.value]})
    if one.operator is FilterOperator.IS_EMPTY:
        return Condition({}, False, lambda chunk: _value(chunk, key) in (None, "", [], ()))
    if one.operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        if not isinstance(one.value, str):
            raise InputError(f"filter {one.key!r}: operator {one.operator.value!r} takes a string, got {one.value!r}")
        folded = one.operator is FilterOperator.TEXT_MATCH_INSENSITIVE
        there: Filter = {} if key == DOCUMENT_ID else {key: {"$exists": True}}
        return Condition(there, False, partial(_holds_text, key=key, text=one.value, folded=folded))
    raise InputError(
        f"filter {one.key!r}: the operator {one.operator.value!r} is not known to m3rag: use one of "
        f"{', '.join(operator.value for operator in FilterOperator if operator is not one.operator)}"
    )


def _holds_text(chunk: Chunk, *, key: str, text: str, folded: bool) -> bool:
    value = _value(chunk, key)
    strings = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return any(text.casefold() in one.casefold() if folded else text in one for one in strings)


def _value(chunk: Chunk, key: str) -> Any:
    return chunk.document_id if key == DOCUMENT_ID else filterable(chunk).get(key)
