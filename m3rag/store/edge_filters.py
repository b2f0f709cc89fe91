"""Filters as conditions of Qdrant Edge on the payload of `m3rag.store.payload`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import qdrant_edge as qdrant

from m3rag.store.filters import DOCUMENT_ID, And, AnyOf, Condition, Exists, Not, Or, Range

KEYWORD_FIELDS = ("kind", "document_id", "revision", "terms", "keys")

Engine = qdrant.FieldCondition | qdrant.Filter


def any_of(field: str, values: Iterable[str]) -> qdrant.FieldCondition:
    """The condition that a payload field has one of some values; no values let nothing pass."""
    return qdrant.FieldCondition(field, match=qdrant.MatchAny(list(values)))


def of_kind(kind: str) -> qdrant.Filter:
    """The condition that a point stands for a `chunk`, a `document`, the `settings` or a `pending` change."""
    return qdrant.Filter(must=[any_of("kind", [kind])])


def chunks_where(condition: Condition, *, without: Collection[str]) -> qdrant.Filter:
    """The engine's conditions for the chunks that meet a condition and are not of some revisions."""
    must = [any_of("kind", ["chunk"]), engine_condition(condition)]
    return qdrant.Filter(must=list(must), must_not=[any_of("revision", without)] if without else None)


def engine_condition(condition: Condition) -> Engine:
    """The same condition in the engine's terms."""
    match condition:
        case And(conditions):
            return qdrant.Filter(must=[engine_condition(one) for one in conditions])
        case Or(conditions):
            # Without any, the engine's `should` would let everything pass.
            either = [engine_condition(one) for one in conditions]
            return qdrant.Filter(should=list(either)) if either else any_of("kind", [])
        case Not(inner):
            return qdrant.Filter(must_not=[engine_condition(inner)])
        case _:
            return _field_condition(condition)


def _field_condition(condition: Exists | AnyOf | Range) -> qdrant.FieldCondition:
    match condition:
        case Exists():
            return any_of("keys", [condition.digest])
        case Range():
            bounds = qdrant.RangeFloat(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
            return qdrant.FieldCondition(f"{condition.field}.{condition.digest}", range=bounds)
        case AnyOf(key, values) if key == DOCUMENT_ID:
            return any_of("document_id", [value for value in values if isinstance(value, str)])
        case AnyOf():
            return any_of("terms", condition.terms)


def ranges_in(condition: Condition) -> set[str]:
    """The fields of the payload whose numbers a condition compares."""
    match condition:
        case And(conditions) | Or(conditions):
            return {field for one in conditions for field in ranges_in(one)}
        case Not(inner):
            return ranges_in(inner)
        case Range():
            return {f"{condition.field}.{condition.digest}"}
        case _:
            return set()
