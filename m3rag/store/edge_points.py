"""How chunks, documents and queries look to Qdrant Edge: its schema, points and conditions."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.store.filters import DOCUMENT_ID, allowed_values, term
from m3rag.store.payload import chunk_to_payload, is_unicode, record_to_payload
from m3rag.store.protocol import DocumentRecord, Filter
from m3rag.types import Chunk, Leg, ModelInfo

INDEXED_FIELDS = ("kind", "document_id", "revision", "terms")

# 1 GB of ColBERT vectors (the largest of the three decide), about 20,000 chunks of 200 tokens at
# 128 dimensions. An exact scan of as many dense vectors takes 2-10 ms; the engine's own default of
# 20 MB would build a graph every 400 chunks and copy all vectors each time.
INDEXING_THRESHOLD_KB = 1_000_000


def schema(model: ModelInfo) -> qdrant.EdgeConfig:
    """The collection of one model: those of `dense`, `lexical` and `colbert` that it gives, on every chunk's point."""
    vectors = {"dense": qdrant.EdgeVectorParams(model.dense_dim, qdrant.Distance.Dot)}
    if "colbert" in model.legs:
        vectors["colbert"] = qdrant.EdgeVectorParams(
            model.colbert_dim,
            qdrant.Distance.Dot,
            multivector_config=qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim),
            datatype=qdrant.VectorStorageDatatype.Float16,
            # m=0: no graph. ColBERT scores a few hundred candidates, exactly.
            hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=0),
        )
    return qdrant.EdgeConfig(
        vectors=vectors,
        sparse_vectors={"lexical": qdrant.EdgeSparseVectorParams()} if "lexical" in model.legs else {},
        optimizers=qdrant.EdgeOptimizersConfig(indexing_threshold=INDEXING_THRESHOLD_KB),
    )


def point_id(kind: str, name: str) -> uuid.UUID:
    """The id of the point that stands for a `chunk`, a `document` or a `pending` change.

    Points cannot have arbitrary strings as ids, chunks can.
    """
    return _digest(kind, name)


def revision(document_id: str, version: str) -> str:
    """The keyword on all chunks of one version of one document."""
    return str(_digest("revision", document_id, version))


def _digest(*parts: str) -> uuid.UUID:
    # JSON keeps the parts apart, and escapes the lone surrogates that are never stored but may be
    # asked for.
    return uuid.UUID(bytes=hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest(), version=5)


def chunk_point(chunk: Chunk, output: M3Output, *, revision: str) -> qdrant.Point:
    """The point of one chunk; an empty representation is left out, since the engine has no empty vector."""
    vectors: dict[str, Any] = {"dense": output.dense[0].tolist()}
    lexical = _sparse(output)
    if lexical is not None:
        vectors["lexical"] = lexical
    if len(output.colbert):
        vectors["colbert"] = output.colbert.tolist()
    payload = {"kind": "chunk", "revision": revision, **chunk_to_payload(chunk)}
    return qdrant.Point(point_id("chunk", chunk.id), vectors, payload)


def document_point(record: DocumentRecord) -> qdrant.Point:
    """The point, without vectors, that makes a document exist."""
    return qdrant.Point(point_id("document", record.id), {}, {"kind": "document", **record_to_payload(record)})


def pending_point(document_id: str) -> qdrant.Point:
    """The point that says a document is being changed, so that the next open looks at it."""
    return qdrant.Point(point_id("pending", document_id), {}, {"kind": "pending", "document_id": document_id})


def any_of(field: str, values: Iterable[str]) -> qdrant.FieldCondition:
    """The condition that a payload field has one of some values; no values let nothing pass."""
    return qdrant.FieldCondition(field, match=qdrant.MatchAny(list(values)))


def of_kind(kind: str) -> qdrant.Filter:
    """The condition that a point stands for a `chunk`, a `document` or a `pending` change."""
    return qdrant.Filter(must=[any_of("kind", [kind])])


def chunk_filter(filter: Filter | None, *, without: Collection[str]) -> qdrant.Filter:
    """The engine's conditions for the chunks that pass a filter and are not of some revisions."""
    must = [any_of("kind", ["chunk"])]
    for key, values in allowed_values(filter or {}).items():
        if key == DOCUMENT_ID:
            must.append(
                any_of("document_id", [value for value in values if isinstance(value, str) and is_unicode(value)])
            )
        else:
            must.append(any_of("terms", [term(key, value) for value in values]))
    return qdrant.Filter(must=list(must), must_not=[any_of("revision", without)] if without else None)


def query_vector(query: M3Output, leg: Leg) -> Any:
    """The engine's form of one leg of a query, None where the leg is empty and finds nothing."""
    if leg == "dense":
        return query.dense[0].tolist()
    if leg == "colbert":
        return query.colbert.tolist() or None
    return _sparse(query)


def score_scale(query: M3Output, leg: Leg) -> float:
    """What the engine's score must be divided by: its MaxSim sums over query tokens, ours is the mean."""
    return max(1, len(query.colbert)) if leg == "colbert" else 1


def _sparse(output: M3Output) -> qdrant.SparseVector | None:
    kept = output.lexical.data > 0
    if not kept.any():
        return None
    return qdrant.SparseVector(output.lexical.indices[kept].tolist(), output.lexical.data[kept].tolist())


def output_of(vectors: Sequence[Mapping[str, Any]], model: ModelInfo) -> M3Output:
    """The representations that the points hold, in their order."""
    n = len(vectors)
    sparse = [vector.get("lexical") for vector in vectors]
    indices = [np.array(one.indices if one else [], np.int32) for one in sparse]
    weights = [np.array(one.values if one else [], np.float32) for one in sparse]
    no_tokens = np.zeros((0, model.colbert_dim), np.float16)
    colbert = [np.array(vector["colbert"], np.float16) if "colbert" in vector else no_tokens for vector in vectors]
    return M3Output(
        dense=np.array([vector["dense"] for vector in vectors], np.float32).reshape(n, model.dense_dim),
        lexical=csr_array(
            (
                np.concatenate([*weights, np.zeros(0, np.float32)]),
                np.concatenate([*indices, np.zeros(0, np.int32)]),
                np.cumsum([0, *(len(one) for one in indices)]).astype(np.int32),
            ),
            shape=(n, model.vocab_size),
        ),
        colbert=np.concatenate([*colbert, no_tokens]),
        offsets=np.cumsum([0, *(len(one) for one in colbert)]).astype(np.int64),
    )
