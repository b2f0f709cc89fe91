"""A collection on a Qdrant server: made in steps that can be finished later, and known by its manifest.

The manifest is a point, so that every server and local mode have it, and the last thing that is
written: a collection without one is foreign, unless it is empty and looks as ours would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_client import models

from m3rag._version import __version__
from m3rag.errors import IndexMismatchError, IndexMissingError, InputError, StoreError
from m3rag.store.manifest import check_codec
from m3rag.store.protocol import FORMAT, Manifest
from m3rag.store.qdrant_connection import Connection, upserting
from m3rag.store.qdrant_points import KEYWORD_FIELDS, bare_point, point_id, schema
from m3rag.types import ModelInfo

OLDEST_SERVER = (1, 12)  # facets
OLDEST_FORMAT = 2


@dataclass(frozen=True, slots=True)
class QdrantInfo:
    """What a server says of a collection.

    Attributes:
        location: Where the server is, without user, password or key.
        collection: The collection's name.
        status: `green`, or `yellow` while it optimises, `grey` where that waits, `red` on an error.
        points: About how many points there are; chunks, and some for each document.
        indexed_vectors: How many vectors are in a graph or an inverted index.
        shard_number: Into how many parts the collection is split.
        replication_factor: On how many nodes each part is kept.
        write_consistency_factor: How many of these must have a write before it is acknowledged.
        on_disk: Whether vectors are read from disk; None where the server decides.
    """

    location: str
    collection: str
    status: str
    points: int
    indexed_vectors: int
    shard_number: int
    replication_factor: int
    write_consistency_factor: int
    on_disk: bool | None


def check_server(connection: Connection) -> None:
    """Ask the server who it is.

    Raises:
        StoreError: If it cannot be reached, is too old, or no Qdrant server.
    """
    with connection.client() as client:
        told = client.info().version
    try:
        major, minor = (int(part) for part in told.split(".")[:2])
    except ValueError as error:
        raise StoreError(f"what answers at {connection.place} is no Qdrant server (version {told!r})") from error
    if (major, minor) < OLDEST_SERVER:
        raise StoreError(
            f"the Qdrant server at {connection.place} is version {told}: upgrade it to "
            f"{'.'.join(map(str, OLDEST_SERVER))} or later"
        )


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a cluster is to spread a collection; None leaves it to the server."""

    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None


def make_collection(
    connection: Connection, model: ModelInfo, *, sharding: Sharding, on_disk: bool | None, codec: str
) -> Manifest:
    """Make an empty collection, or finish one whose making was interrupted.

    Raises:
        InputError: If the name is taken, or an option is below 1.
        StoreError: If the server cannot be reached, is too old, or refuses.
    """
    options = asdict(sharding)
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    wanted = schema(model, on_disk=on_disk, codec=codec)
    if _is_there(connection):
        _refuse_unless_unfinished(connection, wanted)
    else:
        try:
            with connection.client() as client:
                client.create_collection(connection.collection, **wanted, **options)
        except StoreError:
            if not _is_there(connection):
                raise
            _refuse_unless_unfinished(connection, wanted)  # another client was quicker
    for field in KEYWORD_FIELDS:
        index_field(connection, field, models.PayloadSchemaType.KEYWORD)
    index_field(connection, "chunks", models.PayloadSchemaType.INTEGER)
    manifest = Manifest(model=model, m3rag_version=__version__, codec=codec)
    connection.write(
        upserting([bare_point(point_id("settings", ""), "settings", {})]),
        upserting([bare_point(point_id("manifest", ""), "manifest", asdict(manifest))]),
    )
    return manifest


def index_field(connection: Connection, field: str, type: models.PayloadSchemaType) -> None:
    """Have the server index a field of the payload; local mode has no indexes."""
    if not connection.local:
        with connection.client() as client:
            client.create_payload_index(connection.collection, field_name=field, field_schema=type, wait=True)


def read_collection(connection: Connection, model: ModelInfo | None) -> Manifest:
    """Read whose collection it is.

    Raises:
        IndexMissingError: If there is none.
        IndexMismatchError: If it is of another model, or of a format that cannot be read.
        StoreError: If it is not of m3rag, or the server cannot be reached.
    """
    where = f"the collection {connection.collection!r} at {connection.place}"
    if not _is_there(connection):
        raise IndexMissingError(
            f"there is no collection {connection.collection!r} at {connection.place}: make it with "
            "QdrantStore.create or open_or_create, or check the name and url"
        )
    found = _manifest_payload(connection)
    if found is None:
        raise StoreError(
            f"{where} was not made by m3rag (or its making was interrupted): give another name as collection=, "
            "or make it with QdrantStore.create"
        )
    manifest = _manifest(found, where)
    made_by = manifest.model
    if model is not None and made_by.fingerprint != model.fingerprint:
        raise IndexMismatchError(
            f"{where} was made by model {made_by.name!r} ({made_by.fingerprint:.12}), not by {model.name!r} "
            f"({model.fingerprint:.12}): search it with {made_by.name!r}, or ingest the documents with {model.name!r} "
            "into another collection, as m3rag rebuild does for an index"
        )
    return manifest


def is_collection(connection: Connection) -> bool:
    """Whether there is a collection of m3rag, whose making was finished."""
    return _is_there(connection) and _manifest_payload(connection) is not None


def collection_info(connection: Connection) -> QdrantInfo:
    """What the server says of the collection."""
    with connection.client() as client:
        told = client.get_collection(connection.collection)
    params = told.config.params
    vectors: Any = params.vectors
    return QdrantInfo(
        location=connection.place,
        collection=connection.collection,
        status=told.status.value,
        points=told.points_count or 0,
        indexed_vectors=told.indexed_vectors_count or 0,
        shard_number=params.shard_number or 1,
        replication_factor=params.replication_factor or 1,
        write_consistency_factor=params.write_consistency_factor or 1,
        on_disk=vectors["dense"].on_disk,
    )


def _is_there(connection: Connection) -> bool:
    with connection.client() as client:
        return client.collection_exists(connection.collection)


def _manifest_payload(connection: Connection) -> Mapping[str, Any] | None:
    found = connection.retrieve([point_id("manifest", "")], settled=True)
    return found[0].payload if found else None


def _manifest(payload: Mapping[str, Any], where: str) -> Manifest:
    try:
        written = int(payload["format"])
        if not OLDEST_FORMAT <= written <= FORMAT:
            newer = written > FORMAT
            raise IndexMismatchError(
                f"{where} has format {written}, written by m3rag {payload.get('m3rag_version')}; this m3rag reads "
                f"{OLDEST_FORMAT} to {FORMAT}: "
                + ("upgrade it (pip install -U m3rag)" if newer else "ingest into a new collection")
            )
        codec = str(payload.get("codec", "float16"))
        check_codec(codec, where)
        model = ModelInfo(**payload["model"])
        return Manifest(model=model, m3rag_version=payload["m3rag_version"], format=written, codec=codec)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the manifest of {where} is damaged ({type(error).__name__}: {error}): restore a snapshot, "
            "or delete the collection and ingest again"
        ) from error


def _refuse_unless_unfinished(connection: Connection, wanted: Mapping[str, Any]) -> None:
    if _manifest_payload(connection) is not None:
        raise InputError(
            f"there is already an index in collection {connection.collection!r} at {connection.place}: "
            "open it, or give another name as collection="
        )
    with connection.client() as client:
        told = client.get_collection(connection.collection)
        points = client.count(connection.collection, exact=True).count
    vectors: Any = told.config.params.vectors
    kinds = (
        {name: (params.size, params.datatype) for name, params in vectors.items()} if isinstance(vectors, dict) else {}
    )
    ours = kinds == {name: (params.size, params.datatype) for name, params in wanted["vectors_config"].items()}
    # The settings' point may have been written.
    if not ours or points > 1:
        raise InputError(
            f"the collection {connection.collection!r} at {connection.place} is not of m3rag "
            f"({points} points): give another name as collection="
        )
