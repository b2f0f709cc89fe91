"""Where an index lies, from one setting: a folder, a Qdrant server, or Chroma."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from m3rag.errors import ConfigurationError, IndexMissingError
from m3rag.store.codec import codec_named
from m3rag.store.manifest import check_model, missing
from m3rag.store.protocol import Store
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from m3rag.store.memory import MemoryStore

DEFAULT_COLLECTION = "m3rag"

MEMORY = ":memory:"


class _StoreClass(Protocol):
    """What the classes of stores that outlive their process have in common."""

    def exists(self, *args: Any, **options: Any) -> bool: ...
    def open(self, *args: Any, **options: Any) -> Store: ...
    def open_or_create(self, *args: Any, **options: Any) -> Store: ...


@dataclass(frozen=True)
class Place:
    """Where an index lies, and by which store it is opened.

    Attributes:
        name: As the user wrote it; it holds no secret.
        folder: The folder on this machine that holds all of it; None for a server.
    """

    name: str
    folder: Path | None
    _load: Callable[[], _StoreClass]
    _where: str | Path
    _options: Mapping[str, Any]
    _secrets: Mapping[str, Any]
    _making: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Place({self.name!r})"

    def __str__(self) -> str:
        return self.name

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder and nothing else: not one of several collections in one."""
        return self.folder is not None and not self._options

    def shares_server(self, other: Place) -> bool:
        """Whether two indexes lie on one server, so that the key of one may be shown to the other."""
        return self.folder is None and self._where == other._where

    def exists(self) -> bool:
        """Whether there is an index.

        Raises:
            StoreError: If a server cannot be asked.
        """
        return self._load().exists(self._where, **self._options, **self._secrets)

    def open(self, model: ModelInfo | None = None) -> Store:
        """Open the index; with a model, only if it made it.

        Raises:
            IndexMissingError: If there is none.
            IndexLockedError: If another process has it, and it takes one alone.
            IndexMismatchError: If another model made it.
        """
        try:
            return self._load().open(self._where, model, **self._options, **self._secrets)
        except IndexMissingError as error:
            if not self._options:
                raise
            # A store of collections names its own methods, which who gave a setting does not know.
            raise missing(self.name) from error

    def open_or_create(self, model: ModelInfo) -> Store:
        """Open the index, made first if there is none. Raises as `open` does."""
        return self._load().open_or_create(self._where, model, **self._options, **self._secrets, **self._making)


def place_of(index: str | os.PathLike[str] | Place, *, api_key: str | None = None, codec: str | None = None) -> Place:
    """The place that a setting names.

    Args:
        index: One of

            - a folder: the default store, Qdrant Edge, in this process;
            - `:memory:`: a store that lives as long as what opened it, compared by brute force;
            - `http://HOST:6333/COLLECTION` (or https): a Qdrant server or cluster;
            - `chroma:FOLDER` or `chroma:FOLDER?collection=NAME`: Chroma's persistent client;
            - `chroma+http://HOST:8000/COLLECTION?side=FOLDER`: a Chroma server; what it cannot hold
              lies in the folder.

            The collection is `m3rag` where none is named.
        api_key: Of a Qdrant server.
        codec: How an index that is made there keeps token vectors, see `m3rag.store.codec`; by default as
            its store does.

    Raises:
        ConfigurationError: If the address is malformed, or there is no such codec.
    """
    if isinstance(index, Place):
        return index
    place = _place_of(os.fspath(index), api_key)
    return replace(place, _making={"codec": codec_named(codec).name}) if codec is not None else place


def _place_of(text: str, api_key: str | None) -> Place:
    if not text.strip():
        raise ConfigurationError("the index is empty: name its folder, or leave it out for the setting `index`")
    if text == MEMORY:
        memory = _Memory()
        return Place(text, None, lambda: memory, text, {}, {})
    if text.startswith("chroma:"):
        folder, _, query = text.removeprefix("chroma:").partition("?")
        if not folder:
            raise ConfigurationError(f"the index {text!r} names no folder: write chroma:FOLDER")
        options = _options_of(query, text, allowed=("collection",))
        path = _fixed(folder)
        return Place(text, path, _chroma, path, {"collection": DEFAULT_COLLECTION, **options}, {})
    if text.startswith(("http://", "https://", "chroma+http://", "chroma+https://")):
        return _server(text, api_key)
    if "://" in text:
        raise ConfigurationError(
            f"the index {text!r} is of no kind that m3rag knows: give a folder, http://HOST:6333/COLLECTION (Qdrant), "
            "chroma:FOLDER or chroma+http://HOST:8000/COLLECTION?side=FOLDER"
        )
    path = _fixed(text)
    return Place(str(Path(text).expanduser()), path, _qdrant_edge, path, {}, {})


def _fixed(folder: str) -> Path:
    """A folder that stays where it was when it was named, whatever becomes of the working directory."""
    try:
        path = Path(folder).expanduser().absolute()
        os.path.realpath(path)
    except (OSError, ValueError, RuntimeError) as error:  # a working directory that is gone, a NUL, no such home
        raise ConfigurationError(f"the index cannot be at {folder!r:.80} ({error}): give another folder") from error
    return path


def _server(text: str, api_key: str | None) -> Place:
    is_chroma = text.startswith("chroma+")
    parts = urlsplit(text.removeprefix("chroma+"))
    if parts.username or parts.password:
        raise ConfigurationError(
            f"the index at {parts.hostname!r} has a user or password in its address, where logs would show it: "
            "give the key as the setting index_api_key (M3RAG_INDEX_API_KEY)"
        )
    collection = parts.path.strip("/") or DEFAULT_COLLECTION
    if not parts.hostname or "/" in collection:
        raise ConfigurationError(f"the index {text!r} is malformed: write SCHEME://HOST:PORT/COLLECTION")
    server = f"{parts.scheme}://{parts.netloc}"
    if not is_chroma:
        _options_of(parts.query, text, allowed=())
        return Place(text, None, _qdrant, server, {"collection": collection}, {"api_key": api_key} if api_key else {})
    options = _options_of(parts.query, text, allowed=("side",))
    if "side" not in options:
        raise ConfigurationError(f"the index {text!r} needs a folder for what Chroma cannot hold: add ?side=FOLDER")
    side = _fixed(options["side"])
    return Place(text, None, _chroma, server, {"collection": collection, "side": side}, {})


def _options_of(query: str, text: str, *, allowed: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        known = f"; there is {', '.join(allowed)}" if allowed else ""
        shown = text.partition("?")[0]  # an option may be somebody's key
        raise ConfigurationError(f"the index {shown!r} has the unknown option {unknown[0]!r}{known}")
    return options


class _Memory:
    """One store of a process, for as long as it is open."""

    def __init__(self) -> None:
        self._store: MemoryStore | None = None

    def exists(self, _: str) -> bool:
        return self._store is not None and not self._store.closed

    def open(self, where: str, model: ModelInfo | None = None) -> Store:
        if self._store is None or self._store.closed:
            raise IndexMissingError("nothing was written into this index in memory: ingest or upsert first")
        if model is not None:
            check_model(Path(where), self._store.manifest, model)
        return self._store

    def open_or_create(self, where: str, model: ModelInfo, **codec: str) -> Store:
        from m3rag.store.memory import MemoryStore  # noqa: PLC0415

        if not self.exists(where):
            self._store = MemoryStore(model, **codec)
        return self.open(where, model)


def _qdrant_edge() -> _StoreClass:
    from m3rag.store import QdrantEdgeStore  # noqa: PLC0415 - engines load when used

    return QdrantEdgeStore


def _qdrant() -> _StoreClass:
    from m3rag.store import QdrantStore  # noqa: PLC0415

    return QdrantStore


def _chroma() -> _StoreClass:
    from m3rag.store import ChromaStore  # noqa: PLC0415

    return ChromaStore
