"""Filters on a side store: keywords and numbers of each chunk in two tables, and a condition as a mask."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from m3rag.store.filter_index import Mask, mask_of
from m3rag.store.filters import DOCUMENT_ID, AnyOf, Condition, Exists, Range
from m3rag.store.payload import Payload
from m3rag.store.sqlite_file import groups
from m3rag.store.view import Positions, View

SCHEMA = """
CREATE TABLE terms (term TEXT, row INTEGER, PRIMARY KEY (term, row)) WITHOUT ROWID;
CREATE TABLE numbers (key TEXT, value REAL, row INTEGER, PRIMARY KEY (key, value, row)) WITHOUT ROWID;
"""
COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def add_postings(connection: sqlite3.Connection, row: int, payload: Payload) -> None:
    """Make one chunk findable by its payload's `terms`, `keys`, `numbers` and `times`."""
    connection.executemany("INSERT INTO terms VALUES (?, ?)", [(term, row) for term in _terms(payload)])
    connection.executemany("INSERT INTO numbers VALUES (?, ?, ?)", [(*number, row) for number in _numbers(payload)])


def remove_postings(connection: sqlite3.Connection, row: int, payload: Payload) -> None:
    """Undo `add_postings`."""
    connection.executemany("DELETE FROM terms WHERE term = ? AND row = ?", [(term, row) for term in _terms(payload)])
    connection.executemany(
        "DELETE FROM numbers WHERE key = ? AND value = ? AND row = ?", [(*number, row) for number in _numbers(payload)]
    )


def _terms(payload: Payload) -> list[str]:
    return [*payload["terms"], *(_of_key(key) for key in payload["keys"])]


def _of_key(digest: str) -> str:
    return f"key {digest}"


def _numbers(payload: Payload) -> list[tuple[str, float]]:
    fields = ("numbers", "times")
    return [(f"{field} {key}", value) for field in fields for key, values in payload[field].items() for value in values]


def mask_in(condition: Condition, view: View, connection: sqlite3.Connection) -> Mask:
    """Which positions of a view hold a chunk for which a condition holds; those not alive may be in it."""

    def found(one: AnyOf | Exists | Range) -> Positions:
        return view.positions(np.fromiter((row for (row,) in _rows_of(one, connection)), np.int64))

    return mask_of(condition, len(view.rows), found)


def _rows_of(condition: AnyOf | Exists | Range, connection: sqlite3.Connection) -> Iterator[tuple[int]]:
    match condition:
        case Exists():
            return _any(connection, "terms", "term", [_of_key(condition.digest)])
        case AnyOf(key, values) if key == DOCUMENT_ID:
            return _any(connection, "chunks", "document_id", values)
        case AnyOf():
            return _any(connection, "terms", "term", condition.terms)
        case Range():
            return _in_range(connection, condition)


def _any(connection: sqlite3.Connection, table: str, column: str, values: Sequence[Any]) -> Iterator[tuple[int]]:
    for group in groups(values):
        marks = ", ".join("?" * len(group))
        yield from connection.execute(f"SELECT row FROM {table} WHERE {column} IN ({marks})", group)


def _in_range(connection: sqlite3.Connection, condition: Range) -> Iterator[tuple[int]]:
    bounds = [(sign, getattr(condition, name)) for name, sign in COMPARISONS.items()]
    given = [(sign, bound) for sign, bound in bounds if bound is not None]
    where = " AND ".join(["key = ?", *(f"value {sign} ?" for sign, _ in given)])
    key = f"{condition.field} {condition.digest}"
    yield from connection.execute(f"SELECT row FROM numbers WHERE {where}", [key, *(bound for _, bound in given)])
