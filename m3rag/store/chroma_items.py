"""A Chroma collection as a copy of chunks: dense vector, text and flat metadata under the chunk's id."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from m3rag.errors import InputError, StoreError
from m3rag.store.sqlite_file import groups
from m3rag.store.terms import is_unicode
from m3rag.types import Chunk, Metadata

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.collection_configuration import CreateHNSWConfiguration
    from chromadb.api.models.Collection import Collection as ChromaCollection
    from chromadb.api.types import Include

T = TypeVar("T")

log = logging.getLogger(__name__)

PREFIX = "m3rag_"
"""What the names of our own metadata begin with in Chroma."""

NAMED = "m3rag:"
PAUSES = (0.1, 0.4, 1.6)  # seconds
ID_BATCH = 1_000
ID_PAGE = 50_000
# Chroma's own (100, 100, 16) find .63 of the best 100 among 5,000 random vectors, these .998.
HNSW = {"ef_search": 400, "ef_construction": 200, "max_neighbors": 32}
MOST_INT = 2**63  # beyond it Chroma makes a float of an int


class ChromaItems:
    """One collection, whatever client it is reached by.

    Args:
        collection: Chroma's own object.
        where: For messages.
    """

    def __init__(self, collection: ChromaCollection, *, where: str) -> None:
        self._collection = collection
        self._where = where

    @classmethod
    def make(cls, client: ClientAPI, name: str, *, hnsw: Mapping[str, int], where: str) -> ChromaItems:
        """The collection of a name, made if there is none.

        Raises:
            StoreError: If Chroma cannot be reached, or refuses.
        """
        # No embedding function: Chroma's own would fetch a model as soon as it is asked for a text.
        with _named(name, where):
            space: CreateHNSWConfiguration = {"space": "ip", **HNSW, **hnsw}  # type: ignore[typeddict-item]
            made = client.get_or_create_collection(name, embedding_function=None, configuration={"hnsw": space})
        return cls(made, where=where)

    @classmethod
    def find(cls, client: ClientAPI, name: str, *, where: str) -> ChromaItems | None:
        """The collection of a name, None if there is none.

        Raises:
            StoreError: If Chroma cannot be reached.
        """
        from chromadb.errors import NotFoundError  # noqa: PLC0415

        with _named(name, where):
            try:
                return cls(client.get_collection(name, embedding_function=None), where=where)
            except NotFoundError:
                return None

    @property
    def id(self) -> str:
        """Chroma's id of the collection: another one under the same name has another."""
        return str(self._collection.id)

    def put(self, chunks: Sequence[Chunk], dense: npt.NDArray[np.float32], *, replacing: Collection[str]) -> None:
        """Make the items of a few chunks `n` with the vectors `(n, d)`.

        Args:
            chunks: At least one, few enough for one request.
            dense: Their vectors.
            replacing: Those of their ids that there are items of (`held`).
        """
        # An upsert would keep the metadata that an older item had beside ours.
        self.delete(replacing)
        with self._errors():
            write = partial(
                self._collection.upsert,
                ids=[_name_of(chunk.id) for chunk in chunks],
                embeddings=dense,
                documents=[chunk.text for chunk in chunks],
                metadatas=[flat_metadata(chunk) for chunk in chunks],
            )
            _patiently(write)

    def delete(self, ids: Collection[str]) -> None:
        """Remove items; those that are not there are no error."""
        for group in groups([_name_of(id_) for id_ in ids], ID_BATCH):
            with self._errors():
                _patiently(partial(self._collection.delete, ids=group))

    def held(self, ids: Sequence[str]) -> set[str]:
        """Those of some ids that there are items of."""
        found: set[str] = set()
        for group in groups([_name_of(id_) for id_ in ids], ID_BATCH):
            with self._errors():
                found.update(map(_id_of, _patiently(partial(self._collection.get, ids=group, include=[]))["ids"]))
        return found

    def ids(self) -> set[str]:
        """The ids of all items."""
        return set(map(_id_of, self._names()))

    def nearest(self, vector: npt.NDArray[np.float32], n: int) -> list[str]:
        """The ids of about the `n` nearest items, by Chroma's graph."""
        with self._errors():
            vectors: list[Any] = [vector]
            query = partial(self._collection.query, query_embeddings=vectors, n_results=n, include=[])
            found = _patiently(query)
        return [_id_of(name) for name in found["ids"][0]]

    def pages(self, size: int) -> Iterator[tuple[list[str], list[str | None], list[Metadata | None]]]:
        """All items there are now, `size` at a time: ids as they are in Chroma, documents, metadata."""
        # By id: pages by number shift where others write meanwhile.
        for group in groups(self._names(), size):
            include: Include = ["documents", "metadatas"]
            with self._errors():
                page = _patiently(partial(self._collection.get, ids=group, include=include))
            nothing: list[Any] = [None] * len(page["ids"])
            yield page["ids"], list(page["documents"] or nothing), list(page["metadatas"] or nothing)

    def _names(self) -> list[str]:
        found: list[str] = []
        while True:
            with self._errors():
                get = partial(self._collection.get, include=[], limit=ID_PAGE, offset=len(found))
                page = _patiently(get)["ids"]
            found += page
            if len(page) < ID_PAGE:
                return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with _named(self._collection.name, self._where):
            yield


def _patiently(call: Callable[[], T]) -> T:
    """Call Chroma, and a few times again where it could not put its own log in order.

    It says so under load ("Error in compaction", chroma-core/chroma issue 5366). A write was logged
    by then; the same write again has no other effect.
    """
    from chromadb.errors import InternalError  # noqa: PLC0415

    for pause in PAUSES:
        try:
            return call()
        except InternalError as error:
            if "compaction" not in str(error):
                raise
            log.info("Chroma: %s; again in %s s", error, pause)
            time.sleep(pause)
    return call()


def _name_of(id_: str) -> str:
    """Chroma's id of a chunk: its own, but that Chroma takes no empty one."""
    return f"{NAMED}{id_}" if not id_ or id_.startswith(NAMED) else id_


def _id_of(name: str) -> str:
    return name.removeprefix(NAMED)


def check_hnsw(hnsw: Mapping[str, int]) -> None:
    """Refuse options that Chroma's graph does not have.

    Raises:
        InputError: If an option is unknown, or no int above 1.
    """
    for name, value in hnsw.items():
        if name not in HNSW or isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise InputError(f"hnsw: {name!r}: {value!r}: give ints above 1 for {', '.join(HNSW)}")


def flat_metadata(chunk: Chunk) -> dict[str, str | int | float | bool]:
    """What a chunk's item has as metadata: the user's flat values as they are, and ours under `m3rag_`.

    What Chroma cannot hold (lists, objects, null, ints beyond 64 bits, keys that begin with `$`,
    `#` or `chroma:`, or with our prefix) is left out here; the side file has it all.
    """
    flat: dict[str, str | int | float | bool] = {}
    for key, value in chunk.metadata.items():
        if _is_key(key) and _is_value(value):
            flat[key] = value
    ours: dict[str, str | int] = {"document_id": chunk.document_id, "start": chunk.start, "end": chunk.end}
    flat.update({f"{PREFIX}{name}": value for name, value in ours.items()})
    if chunk.page is not None:
        flat[f"{PREFIX}page"] = chunk.page
    if chunk.headings:
        flat[f"{PREFIX}headings"] = " > ".join(chunk.headings)
    return flat


def _is_key(key: str) -> bool:
    return bool(key) and is_unicode(key) and not key.startswith(("$", "#", "chroma:", PREFIX))


def _is_value(value: object) -> TypeGuard[str | int | float | bool]:
    if isinstance(value, str):
        return is_unicode(value)
    return isinstance(value, bool | float) or (isinstance(value, int) and -MOST_INT <= value < MOST_INT)


@contextmanager
def _named(collection: str, where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise StoreError(
            f"the Chroma collection {collection!r} at {where} failed ({type(error).__name__}: {error}): "
            "check that Chroma can be reached and has room, then open the index again"
        ) from error
