"""How chunks, documents and queries look to Qdrant Edge: its schema and its points."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.store.payload import Payload, record_to_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.store.view import FirstStage
from m3rag.types import ModelInfo

EXACT_UP_TO = 20_000
"""Points (chunks and documents' records) of which a dense scan takes milliseconds: up to here a graph would only lose
recall, and cost its building."""


def schema(model: ModelInfo) -> qdrant.EdgeConfig:
    """The collection of one model: `dense`, and `lexical` if it gives it, on every chunk's point."""
    # The graph is walked by one byte a dimension, which halves the time; what it finds gets its exact score.
    bytes_too = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8)
    return qdrant.EdgeConfig(
        vectors={"dense": qdrant.EdgeVectorParams(model.dense_dim, qdrant.Distance.Dot, quantization_config=bytes_too)},
        sparse_vectors={"lexical": qdrant.EdgeSparseVectorParams()} if "lexical" in model.legs else {},
        optimizers=optimizers(model),
    )


def optimizers(model: ModelInfo) -> qdrant.EdgeOptimizersConfig:
    """A graph is built from `EXACT_UP_TO` chunks on.

    By the engine's own 20 MB there would be one every few thousand chunks, and all vectors copied each time.
    """
    return qdrant.EdgeOptimizersConfig(indexing_threshold=EXACT_UP_TO * 4 * model.dense_dim // 1000)


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


def chunk_point(chunk: Payload, output: M3Output, *, revision: str, row: int) -> qdrant.Point:
    """The point of one chunk's payload, whose token vectors are in a row of `EdgeTokens`; no empty vector is in it."""
    vectors: dict[str, Any] = {"dense": output.dense[0].tolist()}
    lexical = _sparse(output)
    if lexical is not None:
        vectors["lexical"] = lexical
    payload = {"kind": "chunk", "revision": revision, "row": row, **chunk}
    return qdrant.Point(point_id("chunk", chunk["id"]), vectors, payload)


def document_point(record: DocumentRecord) -> qdrant.Point:
    """The point, without vectors, that makes a document exist."""
    return qdrant.Point(point_id("document", record.id), {}, {"kind": "document", **record_to_payload(record)})


def pending_point(document_id: str) -> qdrant.Point:
    """The point that says a document is being changed, so that the next open looks at it."""
    return qdrant.Point(point_id("pending", document_id), {}, {"kind": "pending", "document_id": document_id})


def settings_point(text: str) -> qdrant.Point:
    """The point that holds the collection's settings, JSON text."""
    return qdrant.Point(point_id("settings", ""), {}, {"kind": "settings", "settings": text})


def query_vector(query: M3Output, leg: FirstStage) -> Any:
    """The engine's form of one leg of a query, None where the leg is empty and finds nothing."""
    return query.dense[0].tolist() if leg == "dense" else _sparse(query)


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
