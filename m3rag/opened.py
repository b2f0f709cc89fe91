"""Indexes that are open in this process, shared by all collections of them: an engine lets one in at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet, WeakValueDictionary, ref

from m3rag.settings import Settings
from m3rag.store.manifest import MANIFEST, check_model, forked
from m3rag.store.place import Place, place_of

if TYPE_CHECKING:
    from m3rag.store.protocol import Store
    from m3rag.types import ModelInfo

_Key = tuple[str, str]
"""The file that tells one index from another, and the server that it is part of."""


class SharedPlace(Place):
    """A place whose index is open once in this process, for all who open it by such a place.

    Each has a `Store` of its own to close, and the last of them closes the index. Who lets go of it without closing
    counts no more. An index that was deleted and made anew is another one. A process that was forked has no part in
    what was open: the engine's threads stayed behind, and a call would wait for them for ever.
    """

    def open(self, model: ModelInfo | None = None) -> Store:
        """As `Place.open`."""
        return self._part(Place.open, model)

    def open_or_create(self, model: ModelInfo) -> Store:
        """As `Place.open_or_create`."""
        return self._part(Place.open_or_create, model)

    def _part(self, opening: Callable[[Place, Any], Store], model: ModelInfo | None) -> Store:
        file = self._witness()
        slot = _slot((str(file), str(self._where) if self.folder is None else ""))
        with slot.lock:
            index = slot.index()
            if index is None or index.mark != _mark(file) or not index.is_ours:
                index = _Open(opening(self, model), file, slot)
                slot.index = ref(index)
            elif model is not None:
                check_model(Path(self.name), index.store.manifest, model)
            return cast("Store", _Part(index))

    def _witness(self) -> Path:
        """The file by which an index is known from one that was made anew in its place."""
        folder = os.path.realpath(self._options.get("side") or self._where)
        collection = self._options.get("collection")
        return Path(os.path.normcase(folder), MANIFEST if collection is None else f"m3rag-{collection}.sqlite3")


def shared_place(index: str | os.PathLike[str] | Place | None, settings: Settings) -> Place:
    """The place that an index names, shared within this process where its engine lets one in at a time.

    Args:
        index: As for `m3rag.Collection`; None for that of the settings.
        settings: Hold a server's key and the codec of a new index.

    Raises:
        ConfigurationError: If the address is malformed.
    """
    place = place_of(settings.index if index is None else index, api_key=settings.index_key, codec=settings.codec)
    if isinstance(place, SharedPlace) or (place.folder is None and "side" not in place._options):
        return place
    return SharedPlace(**{field.name: getattr(place, field.name) for field in fields(place)})


def _nothing() -> None:
    return None


class _Slot:
    """Where an open index is found, and the lock under which it is opened and closed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.index: Callable[[], _Open | None] = _nothing  # weak: nobody's part keeps it open


_SLOTS: WeakValueDictionary[_Key, _Slot] = WeakValueDictionary()

_LOCK = threading.Lock()


def _slot(key: _Key) -> _Slot:
    with _LOCK:
        found = _SLOTS.get(key)
        if found is None:
            found = _SLOTS[key] = _Slot()
        return found


class _Open:
    """An open index, for as long as somebody has a part in it."""

    def __init__(self, store: Store, file: Path, slot: _Slot) -> None:
        self.store = store
        self.slot = slot
        self.parts: WeakSet[_Part] = WeakSet()
        self._file = file
        self._process = os.getpid()
        self.mark = _mark(file)

    @property
    def is_ours(self) -> bool:
        """Whether it was opened in this process, and not in one that this was forked from."""
        return self._process == os.getpid()

    def require_ours(self) -> None:
        if not self.is_ours:
            raise forked(self._file.parent)

    def leave(self, part: _Part) -> None:
        if not self.is_ours:
            return
        with self.slot.lock:
            if part not in self.parts:
                return
            self.parts.discard(part)
            if self.parts:
                return
            if self.slot.index() is self:
                self.slot.index = _nothing
            # Qdrant Edge seals the folder when it is closed, where another index may lie by now.
            if self._file.name != MANIFEST or self.mark == _mark(self._file):
                self.store.close()


class _Part:
    """A `Store` that shares an open index with others."""

    def __init__(self, index: _Open) -> None:
        self._index = index
        index.parts.add(self)

    def __getattr__(self, name: str) -> Any:
        self._index.require_ours()
        return getattr(self._index.store, name)

    def close(self) -> None:
        self._index.leave(self)


def _mark(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    # The manifest is written once; of a database, which is written to, the number alone stays (and is held while open).
    return (found.st_dev, found.st_ino, found.st_mtime_ns if file.name == MANIFEST else 0)
