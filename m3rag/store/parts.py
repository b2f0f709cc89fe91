"""What every store refuses before it writes or searches, so that all refuse the same."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from m3rag.errors import InputError
from m3rag.legs import require_legs
from m3rag.output import M3Output
from m3rag.store.filters import EVERYTHING, Condition, parse_filter
from m3rag.store.payload import require_unique
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.store.terms import shown
from m3rag.types import LEGS, Chunk, Leg, ModelInfo


def checked_parts(
    document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]], *, model: ModelInfo
) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    """Hand parts on one at a time, as long as they are what the record promises.

    Raises:
        InputError: If chunks and representations differ in number, a chunk belongs to another
            document, an id comes twice, the dimensions are not the model's, a number is not finite,
            or (after the last part) there are more or fewer chunks than the record says.
    """
    seen: set[str] = set()
    for chunks, output in parts:
        if len(chunks) != len(output):
            raise InputError(f"document {document.id!r}: {len(chunks)} chunks came with {len(output)} encoded texts")
        check_dimensions(output, model)
        for chunk in chunks:
            if chunk.document_id != document.id:
                raise InputError(f"chunk {chunk.id!r} is of document {chunk.document_id!r}, not of {document.id!r}")
            if chunk.id in seen:
                raise InputError(f"document {document.id!r}: two chunks have the id {chunk.id!r}; ids must be unique")
            seen.add(chunk.id)
        check_numbers(chunks, output)
        yield chunks, output
    if len(seen) != document.chunks:
        raise InputError(f"document {document.id!r}: the record says {document.chunks} chunks, {len(seen)} were given")


def check_chunks(chunks: Sequence[Chunk], output: M3Output, *, model: ModelInfo) -> None:
    """Refuse what cannot be single chunks with their representations.

    Raises:
        InputError: If chunks and representations differ in number, an id comes twice, the
            dimensions are not the model's, or a number is not finite.
    """
    if len(chunks) != len(output):
        raise InputError(f"upsert: {len(chunks)} chunks came with {len(output)} encoded texts")
    check_dimensions(output, model)
    require_unique(chunks)
    check_numbers(chunks, output)


def check_dimensions(output: M3Output, model: ModelInfo) -> None:
    """Refuse representations that another model made.

    Raises:
        InputError: If a dimension is not the model's.
    """
    found = (output.dense.shape[1], output.lexical.shape[1], output.colbert.shape[1])
    expected = (model.dense_dim, model.vocab_size, model.colbert_dim)
    if found != expected:
        raise InputError(
            f"(dense, lexical, colbert) dimensions {found} are not those of {model.name!r} {expected}: "
            "encode with the model the index was made with"
        )


def check_numbers(chunks: Sequence[Chunk], output: M3Output) -> None:
    """Refuse representations that cannot be scored: one NaN would spoil the searches for all other chunks.

    Raises:
        InputError: If a number is not finite, or a lexical weight negative; it names the chunk.
    """
    if all(_scorable(output, leg) for leg in LEGS):
        return
    for chunk, one in zip(chunks, output, strict=True):
        _require_scorable(f"chunk {chunk.id!r}", one, LEGS)


def check_query(query: M3Output, leg: Leg, model: ModelInfo) -> None:
    """Refuse what cannot be one query of one leg.

    Raises:
        InputError: If there is not exactly one text, the leg is unknown, a dimension differs, or a number of the leg
            is not finite.
        ConfigurationError: If the model does not give the leg.
    """
    if leg not in LEGS:
        raise InputError(f"unknown leg {leg!r}: one of {', '.join(get_args(Leg))}")
    require_legs(model, [leg], what=f"a {leg} score", remedy=f"choose among {', '.join(model.legs)}")
    if len(query) != 1:
        raise InputError(f"a query is the output of one text, got {len(query)}: search one at a time, query[i]")
    check_dimensions(query, model)
    _require_scorable("the query", query, [leg])


def check_k(k: int) -> None:
    """Refuse what is no number of results.

    Raises:
        InputError: If `k` is not a whole number above 0.
    """
    _require_positive("k", k)


def check_limit(limit: int) -> None:
    """Refuse what is no length of a page.

    Raises:
        InputError: If `limit` is not a whole number above 0.
    """
    _require_positive("limit", limit)


def _require_positive(name: str, number: object) -> None:
    try:
        positive = operator.index(number) >= 1  # type: ignore[arg-type]  # also one of numpy's
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {number!r}") from None
    if not positive:
        raise InputError(f"{name} must be at least 1, got {number}")


def parse_deletion(filter: Filter, *, of: Manifest | None = None) -> Condition:
    """The condition of what to delete, which must not be everything by an oversight; see `parse_filter`.

    Raises:
        InputError: If the filter is empty, or makes no sense.
        IndexMismatchError: If the collection was written in a format that cannot answer.
    """
    condition = parse_filter(filter, of=of)
    if condition == EVERYTHING:
        raise InputError("delete: an empty filter would delete every chunk; to empty a store, use delete_documents")
    return condition


def merged_settings(before: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Settings with some values changed or (None) forgotten, as JSON text.

    Raises:
        InputError: If a key is not a string, or a value not JSON.
    """
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise InputError(f"settings: keys must be strings, got {odd[0]!r:.80}")
    merged = {key: value for key, value in {**before, **values}.items() if value is not None}
    try:
        return json.dumps(merged, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"settings must be JSON values ({error}): {shown(values, length=200)}") from error


def _require_scorable(what: str, output: M3Output, legs: Iterable[Leg]) -> None:
    wrong = [leg for leg in legs if not _scorable(output, leg)]
    if wrong:
        kind = "weights hold a NaN, an infinity or a number below 0"
        if wrong[0] != "lexical":
            kind = "vectors hold a NaN or an infinity"
        raise InputError(
            f"{what}: the {wrong[0]} {kind}, to which nothing compares: the model that gave them is damaged, or "
            "computed in too small a type; encode again in float32"
        )


def _scorable(output: M3Output, leg: Leg) -> bool:
    if leg == "lexical":
        weights = output.lexical.data
        return bool(weights.min(initial=0) >= 0 and weights.max(initial=0) < np.inf)  # a NaN is neither
    return _finite(output.dense if leg == "dense" else output.colbert)


def _finite(values: npt.NDArray[np.floating]) -> bool:
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # numpy looks at halves one by one, which takes seven times as long. As bits, those of infinities and NaNs are the
    # largest of either sign.
    positive, negative = values.view(np.int16).max(initial=0), values.view(np.uint16).max(initial=0)
    return bool(positive < 0x7C00 and negative < 0xFC00)
