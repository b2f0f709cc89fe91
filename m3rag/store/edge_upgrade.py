"""An index of an older format is brought to this one when it is opened, once, and wherever it stops it goes on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import qdrant_edge as qdrant

from m3rag._version import __version__
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_points import chunk_point, output_of
from m3rag.store.manifest import write_manifest
from m3rag.store.payload import chunk_from_payload, chunk_to_payload
from m3rag.store.protocol import FORMAT, Manifest

log = logging.getLogger(__name__)

PAGE = 32  # points: what is done again after a kill


def upgraded(path: Path, engine: EdgeEngine, manifest: Manifest) -> Manifest:
    """Bring every chunk to the form of today: its token vectors in `EdgeTokens`, its payload with all that filters ask.

    About a millisecond a chunk of `mini`. Its representations are those that the older format kept.

    Args:
        path: The index's folder.
        engine: Its engine.
        manifest: What it says of itself.

    Returns:
        What it says from now on.

    Raises:
        StoreError: If it cannot be read or written; what was done so far is kept.
    """
    if manifest.format >= FORMAT:
        return manifest
    log.warning("%s is brought from format %d to %d, once: this takes a while", path, manifest.format, FORMAT)
    for page in engine.records(payload=True, vectors=[], page=PAGE):
        old = [point for point in page if (point.payload or {}).get("kind") == "chunk"]
        old = [point for point in old if "row" not in (point.payload or {})]  # what a kill left undone
        # One at a time: of a long text the engine gives eight million numbers.
        outputs = [output_of([_vectors(engine, point.id)], manifest.model) for point in old]
        rows = engine.write_tokens([blob for output in outputs for blob in engine.tokens.encode(output)])
        payloads: list[Any] = [point.payload for point in old]
        engine.upsert(
            [
                chunk_point(chunk_to_payload(chunk_from_payload(was)), output, revision=was["revision"], row=row)
                for was, output, row in zip(payloads, outputs, rows, strict=True)
            ]
        )
        engine.make_durable(len(old))
    engine.update(qdrant.UpdateOperation.delete_vector_name("colbert"))
    engine.flush()
    manifest = replace(manifest, format=FORMAT, m3rag_version=__version__)
    write_manifest(path, manifest)
    return manifest


def _vectors(engine: EdgeEngine, point: Any) -> Any:
    (found,) = engine.retrieve([point], payload=False, vectors=True)
    return found.vector
