"""The collections that are open in this process, so that what is restored from a pickle finds its own again."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from m3rag.collection import Collection
from m3rag.errors import InputError
from m3rag.llama_index.given_embeddings import GivenEmbeddings
from m3rag.opened import shared_place
from m3rag.settings import load_settings
from m3rag.store.place import MEMORY

if TYPE_CHECKING:
    from m3rag.store.place import Place

_Key = tuple[str, str | None]

_OPENED: WeakValueDictionary[_Key, Collection] = WeakValueDictionary()

_LOCK = threading.Lock()


def opened(index: str, model: str | None, dense_dim: int | None) -> Collection:
    """The collection at a place, that of this process where one is still in use.

    Another model's, or another framework's, shares the open index, see `m3rag.opened`.

    Raises:
        InputError: If both a model and a dimension are given.
        ConfigurationError: If the place is malformed, or the dimension below 1.
    """
    if dense_dim is not None and model is not None:
        raise InputError("dense_dim is for embeddings that nodes bring: leave out model")
    given = None if dense_dim is None else GivenEmbeddings(dense_dim)
    settings = load_settings()
    place = shared_place(index, settings)
    key = _key(place, given.info.name if given else model)
    with _LOCK:
        found = _OPENED.get(key)
        if found is None or _is_deleted(found):
            found = Collection(place, model=model, settings=settings, encoder=given, mode="dense" if given else None)
            _remember(key, found)
        return found


def shared(collection: Collection, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a store that shares a collection.

    Raises:
        InputError: If it is no collection, or other fields are given.
    """
    if not isinstance(collection, Collection):
        raise InputError(f"collection is {collection!r}, must be an m3rag.Collection or KnowledgeBase, or give index=")
    contradicting = sorted(fields.keys() & {"model", "dense_dim"})
    if contradicting:
        raise InputError(f"the collection has its model already: leave out {', '.join(contradicting)}")
    encoder = collection.loaded_encoder
    dense_dim = encoder.info.dense_dim if isinstance(encoder, GivenEmbeddings) else None
    name = collection.model_name
    with _LOCK:
        _remember(_key(collection.place, name), collection)
    return {"index": collection.place.name, "model": None if dense_dim else name, "dense_dim": dense_dim}


def unpicklable(index: str) -> None:
    """Refuse to write down where an index lies that lies in memory.

    Raises:
        InputError: If it does.
    """
    if index == MEMORY:
        raise InputError(
            "an index in memory cannot be pickled, nor restored from a dict: give the store a folder, index='my-index'"
        )


def _remember(key: _Key, collection: Collection) -> None:
    if key[0] != MEMORY:
        _OPENED[key] = collection


def _is_deleted(collection: Collection) -> bool:
    """Whether it still has an index open of which the folder is gone."""
    return collection.path is not None and collection.exists and not collection.place.exists()


def _key(place: Place, model: str | None) -> _Key:
    # Of Chroma, several collections lie in one folder, which the name tells apart.
    return (os.path.abspath(place.folder) if place.folder and place.is_folder else place.name, model)
