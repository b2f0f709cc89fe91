"""The way to one collection of a Qdrant server: its calls, with our errors, from any thread."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from qdrant_client import QdrantClient, models

from m3rag._addresses import on_this_machine
from m3rag.errors import InputError, StoreError
from m3rag.store.payload import Payload
from m3rag.store.qdrant_errors import named_errors
from m3rag.store.qdrant_points import has_id

PAGE = 1_000  # points without vectors of one answer
VECTOR_PAGE = 64  # points with their vectors: a few hundred kB of JSON each

Location = str | os.PathLike[str]
Fields = bool | list[str]

# Local mode is not made for threads; all stores on one client take turns.
_LOCAL_LOCKS: WeakKeyDictionary[QdrantClient, threading.RLock] = WeakKeyDictionary()
_MAKING_LOCK = threading.Lock()


def connect(
    location: Location | None, *, api_key: str | None, timeout: float, prefer_grpc: bool, client: QdrantClient | None
) -> tuple[QdrantClient, str]:
    """A client for a place, and the place's name for people: without user, password, query or key.

    Raises:
        InputError: If the place is neither a url, a path nor `:memory:`.
        IndexLockedError: If it is a folder that another client has open.
    """
    if client is not None:
        return client, "the client given" if location is None else _shown(location)
    if location is None:
        raise InputError("give a location: a url such as http://localhost:6333, or a client")
    if timeout <= 0:
        raise InputError(f"timeout must be above 0 seconds, got {timeout}")
    place = _shown(location)
    with named_errors(place, ""):
        if isinstance(location, os.PathLike):
            return QdrantClient(path=os.fspath(location)), place
        if location == ":memory:":
            return QdrantClient(location), place
        if urlsplit(location).scheme not in ("http", "https"):
            raise InputError(
                f"location {place!r}: give a url with its scheme, such as http://localhost:6333 or "
                "https://cluster.example.com:6333; a folder for local mode as a pathlib.Path; or ':memory:'"
            )
        made = QdrantClient(
            url=location,
            api_key=api_key,
            timeout=max(1, round(timeout)),
            prefer_grpc=prefer_grpc,
            check_compatibility=False,  # it warns from a thread of its own; opening asks the server anyway
            **_without_proxy(location),
        )
        return made, place


def _without_proxy(url: str) -> dict[str, Any]:
    """For a server of this machine: a proxy could not reach it, and would be shown the key and the texts."""
    return {"trust_env": False, "grpc_options": {"grpc.enable_http_proxy": 0}} if on_this_machine(url) else {}


def _shown(location: Location) -> str:
    if isinstance(location, os.PathLike):
        return os.fspath(location)
    parts = urlsplit(location)
    if not parts.netloc:
        return location
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class Connection:
    """One collection, through one client.

    Args:
        client: The client; used by several threads, and possibly by several connections.
        place: Where the server is, for errors.
        collection: The collection's name.
        owned: Whether closing the connection closes the client.
    """

    def __init__(self, client: QdrantClient, place: str, collection: str, *, owned: bool) -> None:
        self.place = place
        self.collection = collection
        self.local = hasattr(getattr(client, "_client", None), "collections")
        self._client = client
        self._owned = owned
        self._closed = False
        self._consistency: models.ReadConsistencyType | None = None
        self._ordering: models.WriteOrdering | None = None
        self._lock: threading.RLock | None = None
        if self.local:
            with _MAKING_LOCK:
                self._lock = _LOCAL_LOCKS.setdefault(client, threading.RLock())

    def use_replicas(self, factor: int) -> None:
        """Say on how many replicas each shard lives, so that what decides visibility is read from most of them."""
        if factor > 1:
            self._consistency = models.ReadConsistencyType.MAJORITY
            self._ordering = models.WriteOrdering.MEDIUM

    def check_open(self) -> None:
        """Refuse to go on after `close`.

        Raises:
            StoreError: If the connection was closed.
        """
        if self._closed:
            raise StoreError(f"the store on {self.collection!r} at {self.place} is closed: open it again")

    @contextmanager
    def client(self) -> Iterator[QdrantClient]:
        """The client itself; what it raises becomes a StoreError that names the place."""
        self.check_open()
        with named_errors(self.place, self.collection):
            if self._lock is None:
                yield self._client
            else:
                with self._lock:
                    yield self._client

    def write(self, *operations: Any) -> None:
        """Make changes one after the other, each of which has been applied when this returns.

        A request that fails may have made none, some or all of them.
        """
        with self.client() as client:
            results = client.batch_update_points(
                self.collection, update_operations=list(operations), wait=True, ordering=self._ordering
            )
        slow = [result.status for result in results if result.status != models.UpdateStatus.COMPLETED]
        if slow:
            raise StoreError(
                f"the Qdrant server at {self.place} only says {slow[0].value!r} of a write: "
                "write it again, which does no harm"
            )

    def retrieve(
        self, ids: Collection[str], *, fields: Fields = True, vectors: bool = False, settled: bool = False
    ) -> list[models.Record]:
        """The points that are there among those named; `settled`: as most replicas have them."""
        wanted, page = list(ids), VECTOR_PAGE if vectors else PAGE
        found: list[models.Record] = []
        for a in range(0, len(wanted), page):
            with self.client() as client:
                found += client.retrieve(
                    self.collection,
                    ids=wanted[a : a + page],
                    with_payload=fields,
                    with_vectors=vectors,
                    consistency=self._consistency if settled else None,
                )
        return found

    def page(
        self, filter: models.Filter, *, limit: int, offset: str | None = None, fields: Fields = True
    ) -> tuple[list[models.Record], str | None]:
        """The next points that pass, by id of point, and the id at which to go on (None: the end)."""
        with self.client() as client:
            found, following = client.scroll(
                self.collection,
                scroll_filter=filter,
                limit=limit,
                offset=offset,
                with_payload=fields,
                consistency=self._consistency,
            )
        return found, None if following is None else str(following)

    def all(self, filter: models.Filter, *, fields: Fields = True) -> list[models.Record]:
        """All points that pass, by id of point."""
        found, following = self.page(filter, limit=PAGE, fields=fields)
        while following is not None:
            more, following = self.page(filter, limit=PAGE, offset=following, fields=fields)
            found += more
        return found

    def count(self, filter: models.Filter) -> int:
        """How many points pass, exactly."""
        with self.client() as client:
            return int(client.count(self.collection, count_filter=filter, exact=True).count)

    def counts(self, field: str, filter: models.Filter) -> dict[str, int]:
        """How many of the points that pass have each value of a keyword field, exactly."""
        limit = PAGE
        while True:
            with self.client() as client:
                hits = client.facet(
                    self.collection,
                    key=field,
                    facet_filter=filter,
                    limit=limit,
                    exact=True,
                    consistency=self._consistency,
                ).hits
            if len(hits) < limit:
                return {str(hit.value): int(hit.count) for hit in hits}
            limit *= 4

    def nearest(
        self, vector: Any, leg: str, *, filter: models.Filter, limit: int, exact: bool, fields: Fields
    ) -> Sequence[models.ScoredPoint]:
        """The points that pass and are nearest to a vector of one leg, best first."""
        # Local mode is always exact, and warns of parameters that it has no use for.
        params = None if self.local else models.SearchParams(exact=exact, hnsw_ef=max(128, 2 * limit))
        with self.client() as client:
            return client.query_points(
                self.collection,
                query=vector,
                using=leg,
                query_filter=filter,
                search_params=params,
                limit=limit,
                with_payload=fields,
            ).points

    def close(self) -> None:
        """Release the client if it is ours. Closing twice is not an error."""
        if not self._closed:
            self._closed = True
            if self._owned:
                self._client.close()


def upserting(points: Sequence[models.PointStruct]) -> models.UpsertOperation:
    """The change that writes points over what has their ids."""
    return models.UpsertOperation(upsert=models.PointsList(points=list(points)))


def deleting(filter: models.Filter) -> models.DeleteOperation:
    """The change that removes the points that pass."""
    return models.DeleteOperation(delete=models.FilterSelector(filter=filter))


def setting(payload: Payload, filter: models.Filter) -> models.SetPayloadOperation:
    """The change that sets some fields of the points that pass; none passing is not an error."""
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, filter=filter))


def deleting_ids(ids: Collection[str]) -> models.DeleteOperation:
    """The change that removes points by id."""
    return deleting(models.Filter(must=[has_id(ids)]))


def is_cursor(text: str) -> bool:
    """Whether a text can be the id of a point."""
    try:
        return str(uuid.UUID(text)) == text
    except (ValueError, TypeError, AttributeError):  # the last two of what is no text
        return False
