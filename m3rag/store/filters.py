"""What a `Filter` means, and how it becomes plain keywords that any engine can match exactly."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from m3rag.errors import InputError
from m3rag.store.protocol import Filter, Scalar
from m3rag.types import Chunk, Metadata

DOCUMENT_ID = "document_id"
"""The key that stands for the chunk's document, whatever its metadata say."""


def allowed_values(filter: Filter) -> dict[str, list[Scalar]]:
    """The values each key may have; an empty list lets nothing pass.

    Raises:
        InputError: If a value is neither a string, a finite number, a bool, nor a list of these.
    """
    allowed: dict[str, list[Scalar]] = {}
    for key, value in filter.items():
        values: list[Any] = (
            list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        )
        for one in values:
            if not isinstance(one, Scalar) or (isinstance(one, float) and not math.isfinite(one)):
                raise InputError(
                    f"filter {key!r}: cannot compare with {one!r}; give a string, a number, a bool or a list of these"
                )
        allowed[key] = values
    return allowed


def matches(chunk: Chunk, filter: Filter) -> bool:
    """Whether a chunk passes: the definition that the stores' own engines are tested against."""
    for key, allowed in allowed_values(filter).items():
        held = chunk.document_id if key == DOCUMENT_ID else chunk.metadata.get(key)
        elements = held if isinstance(held, list | tuple) else [held]
        if not any(_same(element, value) for element in elements for value in allowed):
            return False
    return True


def _same(element: object, value: Scalar) -> bool:
    # In Python True == 1, which a filter on a count of 1 must not find.
    return isinstance(element, bool) == isinstance(value, bool) and element == value


def term(key: str, value: Scalar) -> str:
    """One keyword for one metadata value: equal exactly where the values are the same.

    Engines differ in the types, lengths and key names they can match (Qdrant takes no float, no
    quote in a key, and True for 1); a digest of key and value needs none of that.
    """
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return hashlib.blake2b(json.dumps([key, number]).encode(), digest_size=16).hexdigest()


def terms(metadata: Metadata) -> list[str]:
    """The keywords of all that can be filtered on in some metadata, sorted."""
    found = set()
    for key, value in metadata.items():
        for element in value if isinstance(value, list | tuple) else [value]:
            if isinstance(element, Scalar):
                found.add(term(key, element))
    return sorted(found)
