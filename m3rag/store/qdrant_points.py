"""How chunks, documents and queries look to a Qdrant server: its schema, points and conditions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from qdrant_client import models

from m3rag.errors import ConfigurationError, InputError
from m3rag.output import M3Output
from m3rag.store.edge_points import point_id as _uuid
from m3rag.store.filters import DOCUMENT_ID, And, AnyOf, Condition, Exists, Not, Or, Range
from m3rag.store.payload import Payload, record_to_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.types import Leg, ModelInfo

KEYWORD_FIELDS = ("kind", "document_id", "revision", "terms", "keys")

MULTIVECTOR_LIMIT = 1_048_576
"""Token vectors x dimensions of one text must be fewer: the server's limit, not to be configured."""

REQUEST_BYTES = 16_000_000
"""Estimated size of one write; a server refuses more than 32 MB unless it is configured otherwise."""

_NUMBER_BYTES = 21  # a float32 or float16 as JSON, with its comma, at the most

Engine = models.FieldCondition | models.HasIdCondition | models.Filter


DATATYPES: Mapping[str, models.Datatype] = MappingProxyType(
    {"float16": models.Datatype.FLOAT16, "int8": models.Datatype.TURBO8, "int4": models.Datatype.TURBO4}
)
"""How the server keeps token vectors, by codec."""


def schema(model: ModelInfo, *, on_disk: bool | None, codec: str) -> dict[str, Any]:
    """The arguments that make the collection of one model: those of the three legs that it gives.

    Raises:
        ConfigurationError: If the server has no such codec.
    """
    if codec not in DATATYPES:
        raise ConfigurationError(f"Qdrant cannot keep token vectors as {codec!r}: choose one of {', '.join(DATATYPES)}")
    vectors = {
        "dense": models.VectorParams(size=model.dense_dim, distance=models.Distance.DOT, on_disk=on_disk),
    }
    if "colbert" in model.legs:
        vectors["colbert"] = models.VectorParams(
            size=model.colbert_dim,
            distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            datatype=DATATYPES[codec],
            # m=0: no graph. ColBERT scores a few hundred candidates, exactly.
            hnsw_config=models.HnswConfigDiff(m=0),
            on_disk=on_disk,
        )
    lexical = models.SparseVectorParams(index=models.SparseIndexParams(on_disk=on_disk))
    return {
        "vectors_config": vectors,
        "sparse_vectors_config": {"lexical": lexical} if "lexical" in model.legs else None,
        "on_disk_payload": on_disk,
    }


def point_id(kind: str, *names: str) -> str:
    """The id of the point that stands for a `chunk`, a `document`, a `pending` change or another kind."""
    return str(_uuid(kind, names[0] if len(names) == 1 else json.dumps(names)))


def chunk_point(chunk: Payload, output: M3Output, *, revision: str) -> models.PointStruct:
    """The point of one chunk's payload; an empty representation is left out, since there is no empty vector.

    Raises:
        InputError: If the chunk has more token vectors than the server takes.
    """
    check_size(f"chunk {chunk['id']!r}", output)
    vectors: dict[str, Any] = {"dense": output.dense[0].tolist()}
    lexical = _sparse(output)
    if lexical is not None:
        vectors["lexical"] = lexical
    if len(output.colbert):
        vectors["colbert"] = output.colbert.tolist()
    payload = {"kind": "chunk", "revision": revision, **chunk}
    return models.PointStruct(id=point_id("chunk", chunk["id"]), vector=vectors, payload=payload)


def check_size(what: str, output: M3Output) -> None:
    """Refuse one text's token vectors where the server would.

    Raises:
        InputError: If there are too many.
    """
    if output.colbert.size >= MULTIVECTOR_LIMIT:
        tokens, width = output.colbert.shape
        raise InputError(
            f"{what} has {tokens} token vectors of {width} dimensions; Qdrant takes fewer than {MULTIVECTOR_LIMIT:,} "
            f"numbers, here {(MULTIVECTOR_LIMIT - 1) // width} tokens: make smaller chunks, or pool the token vectors"
        )


def bare_point(id: str, kind: str, payload: Payload) -> models.PointStruct:
    """A point that has no vectors and so is never found by a search."""
    return models.PointStruct(id=id, vector={}, payload={"kind": kind, **payload})


def document_point(record: DocumentRecord) -> models.PointStruct:
    """The point that makes a document exist."""
    return bare_point(point_id("document", record.id), "document", record_to_payload(record))


def in_requests(points: Iterable[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
    """Points in groups that each fit into one request; a point that is larger stands alone."""
    group: list[models.PointStruct] = []
    size = 0
    for point in points:
        more = _bytes(point)
        if group and size + more > REQUEST_BYTES:
            yield group
            group, size = [], 0
        group.append(point)
        size += more
    if group:
        yield group


def _bytes(point: models.PointStruct) -> int:
    vectors: Any = point.vector
    numbers = len(vectors.get("dense", ()))
    if "lexical" in vectors:
        numbers += 2 * len(vectors["lexical"].values)
    numbers += sum(map(len, vectors.get("colbert", ())))
    return numbers * _NUMBER_BYTES + len(json.dumps(point.payload))


def any_of(field: str, values: Iterable[str]) -> models.FieldCondition:
    """The condition that a payload field has one of some values; no values let nothing pass."""
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


def where(*conditions: Engine, without: Iterable[Engine] = ()) -> models.Filter:
    """The points that meet all of some conditions and none of others."""
    excluded = list(without)
    return models.Filter(must=list(conditions), must_not=list(excluded) if excluded else None)


def of_kind(kind: str) -> models.FieldCondition:
    """The condition that a point is of a kind: `chunk`, `document`, `pending`."""
    return any_of("kind", [kind])


def has_id(ids: Iterable[str]) -> models.HasIdCondition:
    """The condition that a point is one of some."""
    return models.HasIdCondition(has_id=list(ids))


def engine_condition(condition: Condition) -> Engine:
    """A filter's condition in the engine's terms, on the payload of `m3rag.store.payload`."""
    match condition:
        case And(conditions):
            return where(*map(engine_condition, conditions))
        case Or(conditions):
            # Without any, the engine's `should` would let everything pass.
            either = [engine_condition(one) for one in conditions]
            return models.Filter(should=list(either)) if either else any_of("kind", [])
        case Not(inner):
            return where(without=[engine_condition(inner)])
        case _:
            return _field_condition(condition)


def _field_condition(condition: AnyOf | Exists | Range) -> models.FieldCondition:
    match condition:
        case Exists():
            return any_of("keys", [condition.digest])
        case AnyOf(key, values):
            if key == DOCUMENT_ID:
                return any_of("document_id", [value for value in values if isinstance(value, str)])
            return any_of("terms", condition.terms)
        case Range():
            bounds = models.Range(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
            return models.FieldCondition(key=f"{condition.field}.{condition.digest}", range=bounds)


def query_vector(query: M3Output, leg: Leg) -> Any:
    """The engine's form of one leg of a query, None where the leg is empty and finds nothing."""
    if leg == "dense":
        return query.dense[0].tolist()
    if leg == "colbert":
        check_size("the query", query)
        return query.colbert.tolist() or None
    return _sparse(query)


def score_scale(query: M3Output, leg: Leg) -> float:
    """What the server's score must be divided by: its MaxSim sums over query tokens, ours is the mean."""
    return max(1, len(query.colbert)) if leg == "colbert" else 1


def vectors_of(record: models.Record) -> Mapping[str, Any]:
    """The named vectors of a point that was retrieved with them."""
    return record.vector if isinstance(record.vector, dict) else {}


def _sparse(output: M3Output) -> models.SparseVector | None:
    kept = output.lexical.data > 0
    if not kept.any():
        return None
    return models.SparseVector(indices=output.lexical.indices[kept].tolist(), values=output.lexical.data[kept].tolist())
