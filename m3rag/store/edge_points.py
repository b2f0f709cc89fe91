"""How chunks, documents and queries look to Qdrant Edge: its schema and its points."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from scipy.sparse import csr_array

from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.store.codec import codec_named
from m3rag.store.payload import Payload, record_to_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.types import Leg, ModelInfo

EXACT_UP_TO = 20_000
"""Points (chunks and documents' records) of which a dense scan takes milliseconds: up to here a graph would only lose
recall, and cost its building."""

TYPICAL_TOKENS = 150


DATATYPES: Mapping[str, qdrant.VectorStorageDatatype] = MappingProxyType(
    {
        "float16": qdrant.VectorStorageDatatype.Float16,
        "int8": qdrant.VectorStorageDatatype.Turbo8,
        "int4": qdrant.VectorStorageDatatype.Turbo4,  # type: ignore[attr-defined]  # the stubs lack it
    }
)
"""How the engine keeps token vectors, by codec: its own kinds of the same bits, scored without decoding in Python.
It has none of one bit."""


def datatype_of(codec: str) -> qdrant.VectorStorageDatatype:
    """The engine's datatype for a codec.

    Raises:
        ConfigurationError: If it has none.
    """
    if codec not in DATATYPES:
        raise ConfigurationError(f"Qdrant cannot keep token vectors as {codec!r}: choose one of {', '.join(DATATYPES)}")
    return DATATYPES[codec]


def schema(model: ModelInfo, *, codec: str) -> qdrant.EdgeConfig:
    """The collection of one model: those of `dense`, `lexical` and `colbert` that it gives, on every chunk's point."""
    # The graph is walked by one byte a dimension, which halves the time; what it finds gets its exact score.
    bytes_too = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8)
    vectors = {"dense": qdrant.EdgeVectorParams(model.dense_dim, qdrant.Distance.Dot, quantization_config=bytes_too)}
    if "colbert" in model.legs:
        vectors["colbert"] = qdrant.EdgeVectorParams(
            model.colbert_dim,
            qdrant.Distance.Dot,
            multivector_config=qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim),
            datatype=datatype_of(codec),
            # m=0: no graph. ColBERT scores a few hundred candidates, exactly.
            hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=0),
        )
    return qdrant.EdgeConfig(
        vectors=vectors,
        sparse_vectors={"lexical": qdrant.EdgeSparseVectorParams()} if "lexical" in model.legs else {},
        optimizers=qdrant.EdgeOptimizersConfig(indexing_threshold=indexing_threshold_kb(model, codec)),
    )


def indexing_threshold_kb(model: ModelInfo, codec: str) -> int:
    """From which size of its largest kind of vector the engine builds a graph: that of `EXACT_UP_TO` typical chunks.

    The engine's own 20 MB would build one every thousand chunks, and copy all vectors each time.
    """
    largest = max(4 * model.dense_dim, TYPICAL_TOKENS * codec_named(codec).width(model.colbert_dim))
    return EXACT_UP_TO * largest // 1000


@lru_cache(maxsize=1 << 16)
def point_id(kind: str, name: str) -> uuid.UUID:
    """The id of the point that stands for a `chunk`, a `document`, the `settings` or a `pending` change.

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


def chunk_point(chunk: Payload, output: M3Output, *, revision: str) -> qdrant.Point:
    """The point of one chunk's payload; an empty representation is left out, since the engine has no empty vector."""
    vectors: dict[str, Any] = {"dense": output.dense[0].tolist()}
    lexical = _sparse(output)
    if lexical is not None:
        vectors["lexical"] = lexical
    if len(output.colbert):
        vectors["colbert"] = output.colbert.tolist()
    return qdrant.Point(point_id("chunk", chunk["id"]), vectors, {"kind": "chunk", "revision": revision, **chunk})


def document_point(record: DocumentRecord) -> qdrant.Point:
    """The point, without vectors, that makes a document exist."""
    return qdrant.Point(point_id("document", record.id), {}, {"kind": "document", **record_to_payload(record)})


def pending_point(document_id: str) -> qdrant.Point:
    """The point that says a document is being changed, so that the next open looks at it."""
    return qdrant.Point(point_id("pending", document_id), {}, {"kind": "pending", "document_id": document_id})


def settings_point(text: str) -> qdrant.Point:
    """The point that holds the collection's settings, JSON text."""
    return qdrant.Point(point_id("settings", ""), {}, {"kind": "settings", "settings": text})


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
