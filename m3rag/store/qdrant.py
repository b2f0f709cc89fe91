"""QdrantStore: chunks on a Qdrant server or cluster, or in qdrant-client's own local mode."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from qdrant_client import QdrantClient, models

from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.filters import Kind
from m3rag.store.parts import merged_settings, parse_deletion
from m3rag.store.protocol import DocumentRecord, Filter, Manifest
from m3rag.store.qdrant_changes import LEASE
from m3rag.store.qdrant_collection import (
    QdrantInfo,
    Sharding,
    check_server,
    collection_info,
    index_field,
    is_collection,
    make_collection,
    read_collection,
)
from m3rag.store.qdrant_connection import Connection, Location, connect, setting
from m3rag.store.qdrant_points import engine_condition, has_id, of_kind, point_id, where
from m3rag.store.qdrant_reads import QdrantReads
from m3rag.store.qdrant_writes import Writes
from m3rag.store.terms import key_digest
from m3rag.types import Chunk, ModelInfo

TIMEOUT = 60.0  # seconds


class QdrantStore(QdrantReads):
    """Chunks on a Qdrant server: the same data and the same searches as `QdrantEdgeStore`, over the network.

    Any number of clients, threads and processes may read and write one collection. Needs
    `pip install 'm3rag[qdrant]'` and a server of version 1.12 or later.

    What is guaranteed:

    - What is acknowledged has been applied and stands in the server's write-ahead log, on as many
      replicas as `write_consistency_factor` says (1 without it). It survives the end of the
      server's process; what a loss of power costs a single node is the server's own matter.
    - A call shows each document as of one moment: its old chunks until the record is replaced, then
      its new ones, never both and never half. Where documents are replaced during all of five tries
      of a search, the last try is checked chunk by chunk instead: still no chunk of a version that
      is not the document's own, but some chunks of a document that was replaced meanwhile may be
      missing, and so may be less than `k`; a count then counts what was there.
    - Two calls are two moments: between them another client may have replaced a document.
    - Of two clients that write one document at a time, the last to commit wins whole.
    - A writer that dies leaves the older version. What it had written stays hidden, and is removed by
      a client that opens the collection an hour later or more, or by `repair`.

    On a cluster, what decides visibility is read from a majority of the replicas.

    Examples:
        >>> store = QdrantStore.open_or_create("http://localhost:6333", encoder.info)  # doctest: +SKIP
    """

    def __init__(self, connection: Connection, manifest: Manifest, *, repair: bool) -> None:
        """Not for callers: use `create`, `open` or `open_or_create`."""
        super().__init__(connection, manifest)
        connection.use_replicas(collection_info(connection).replication_factor)
        self._writes = Writes(connection, self._changes, manifest.model)
        if repair:
            self.repair()

    @classmethod
    def create(
        cls,
        location: Location | None,
        model: ModelInfo,
        *,
        collection: str = "m3rag",
        api_key: str | None = None,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        on_disk: bool | None = None,
        codec: str = "float16",
        timeout: float = TIMEOUT,
        prefer_grpc: bool = False,
        client: QdrantClient | None = None,
    ) -> QdrantStore:
        """Make an empty collection for a model's representations, or finish one whose making was interrupted.

        Args:
            location: The server's url with its scheme; or, for local mode (small data, one
                process), `:memory:` or a folder as a `pathlib.Path`. May be None with a `client`.
            model: The model whose representations will be stored.
            collection: The collection's name.
            api_key: The server's key; never shown in errors.
            shard_number: Into how many parts the collection is split; None: the server decides.
            replication_factor: On how many nodes each part is kept; None: the server decides.
            write_consistency_factor: How many of these must have a write before it is acknowledged.
            on_disk: Whether vectors and payloads are read from disk rather than kept in memory.
            codec: How token vectors are kept: `float16`, or, by a server that knows them, `int8` or `int4`.
            timeout: Seconds for one request, > 0; whole seconds are used, at least 1.
            prefer_grpc: Whether to use gRPC (port 6334) where possible.
            client: A client to use instead of one made from the above; it stays open.

        Raises:
            InputError: If the name is taken, the collection is not of m3rag, or an option is wrong.
            StoreError: If the server cannot be reached, refuses the key, or is too old.
        """
        with _connected(location, collection, client, key=api_key, timeout=timeout, grpc=prefer_grpc) as connection:
            sharding = Sharding(shard_number, replication_factor, write_consistency_factor)
            manifest = make_collection(connection, model, sharding=sharding, on_disk=on_disk, codec=codec)
            return cls(connection, manifest, repair=False)

    @classmethod
    def open(
        cls,
        location: Location | None,
        model: ModelInfo | None = None,
        *,
        collection: str = "m3rag",
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        prefer_grpc: bool = False,
        client: QdrantClient | None = None,
        repair: bool = True,
    ) -> QdrantStore:
        """Open a collection, clearing away what writers have left behind for more than an hour.

        Args:
            location: As for `create`, and so are the options that are not named here.
            model: The model that will be used with it; None to open it whoever made it.
            repair: Whether to clear away; False for a key that may only read.

        Raises:
            IndexMissingError: If there is no such collection.
            IndexMismatchError: If it was made by another model, or by another format of m3rag.
            StoreError: If it is not of m3rag, or the server cannot be reached or refuses the key.
        """
        with _connected(location, collection, client, key=api_key, timeout=timeout, grpc=prefer_grpc) as connection:
            return cls(connection, read_collection(connection, model), repair=repair)

    @classmethod
    def open_or_create(
        cls,
        location: Location | None,
        model: ModelInfo,
        *,
        collection: str = "m3rag",
        api_key: str | None = None,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        on_disk: bool | None = None,
        codec: str = "float16",
        timeout: float = TIMEOUT,
        prefer_grpc: bool = False,
        client: QdrantClient | None = None,
    ) -> QdrantStore:
        """Open a collection, making it first if there is none. Arguments and errors as of both."""
        with _connected(location, collection, client, key=api_key, timeout=timeout, grpc=prefer_grpc) as connection:
            if not is_collection(connection):
                sharding = Sharding(shard_number, replication_factor, write_consistency_factor)
                try:
                    make_collection(connection, model, sharding=sharding, on_disk=on_disk, codec=codec)
                except InputError:
                    if not is_collection(connection):  # else another client was quicker
                        raise
            return cls(connection, read_collection(connection, model), repair=True)

    @staticmethod
    def exists(
        location: Location | None,
        *,
        collection: str = "m3rag",
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        prefer_grpc: bool = False,
        client: QdrantClient | None = None,
    ) -> bool:
        """Whether a server has a collection that m3rag made. Raises a StoreError if it cannot be asked."""
        with _connected(location, collection, client, key=api_key, timeout=timeout, grpc=prefer_grpc) as connection:
            there = is_collection(connection)
            connection.close()
            return there

    @property
    def info(self) -> QdrantInfo:
        """What the server says of the collection now: its state, shards and replicas."""
        return collection_info(self._connection)

    def put_document(self, document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        """Write a document with all its chunks, replacing an older version of it.

        The same version again writes the same chunks over themselves.

        Raises:
            InputError: If the parts are not what the record promises, a chunk's id is taken, or a
                chunk has more token vectors than the server takes; the older version stays.
            StoreError: If the server cannot be reached or refuses (the older version stays, unless
                its answer to the last request was what got lost), if another client spoilt the
                write, or if more than half an hour passed between two parts.
        """
        self._writes.put_document(document, parts)

    def upsert(self, chunks: Sequence[Chunk], output: M3Output) -> None:
        """Add single chunks, or replace those of the same id, outside a whole-document write.

        Raises:
            InputError: If chunks and representations differ in number, an id comes twice, the
                dimensions are not the model's, a number is not finite, metadata are not JSON, a text is
                not Unicode, or there are more token vectors than the server takes; nothing has changed
                then.
            StoreError: If the server cannot be reached or refuses; each chunk is as before or as given.
        """
        self._writes.upsert(chunks, output)

    def delete_chunks(self, chunk_ids: Sequence[str]) -> int:
        """Remove single chunks; returns how many there were."""
        return self._writes.delete_chunks(chunk_ids)

    def delete(self, filter: Filter) -> int:
        """Remove every chunk that passes a filter; returns how many there were.

        Raises:
            InputError: If the filter is empty, or makes no sense.
        """
        condition = engine_condition(parse_deletion(filter, of=self.manifest))
        found = self._connection.all(where(of_kind("chunk"), condition), fields=["id"])
        return self._writes.delete_chunks([(point.payload or {})["id"] for point in found])

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were."""
        return self._writes.delete_documents(document_ids)

    def update_settings(self, values: Mapping[str, Any]) -> None:
        """Remember some values with those that are there; None forgets a key.

        Two clients may change different keys at a time; of one key the last value stays.

        Raises:
            InputError: If a key is not a string, or a value not JSON.
        """
        merged_settings({}, values)
        # Each key is a field of its own, its name in hexadecimal, which any engine takes.
        fields = {key.encode().hex(): json.dumps(value) for key, value in values.items()}
        self._connection.write(setting(fields, where(has_id([point_id("settings", "")]))))

    def repair(self, *, older_than: float = LEASE) -> int:
        """Clear away what writers left behind that died in the middle of a change; `open` does so, too.

        Args:
            older_than: Seconds since a writer's last sign of life; >= 0. A writer that is alive
                after all fails and leaves the older version; 0 is for when no other client writes.

        Returns:
            How many changes there were.
        """
        return self._changes.settle_abandoned(older_than)

    def index_range(self, key: str, kind: Kind = "number") -> None:
        """Let the server index a metadata key for range filters, which work without but look at every chunk.

        Servers in strict mode may refuse ranges on keys that are not indexed.

        Args:
            key: The metadata's key.
            kind: Whether its values are numbers or times.
        """
        field = f"{'numbers' if kind == 'number' else 'times'}.{key_digest(key)}"
        index_field(self._connection, field, models.PayloadSchemaType.FLOAT)

    def close(self) -> None:
        """Release the connection; a client that was given stays open. Closing twice is not an error."""
        self._connection.close()

    def __enter__(self) -> QdrantStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"QdrantStore({self._connection.place!r}, collection={self._connection.collection!r})"


@contextmanager
def _connected(
    location: Location | None,
    collection: str,
    client: QdrantClient | None,
    *,
    key: str | None,
    timeout: float,
    grpc: bool,
) -> Iterator[Connection]:
    made, place = connect(location, api_key=key, timeout=timeout, prefer_grpc=grpc, client=client)
    connection = Connection(made, place, collection, owned=client is None)
    try:
        check_server(connection)
        yield connection
    except BaseException:
        connection.close()
        raise
