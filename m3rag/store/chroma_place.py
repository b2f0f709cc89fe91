"""Where a Chroma collection and its side file lie, and the locks that keep a second writer out."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from m3rag.errors import IndexLockedError, InputError, StoreError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

Where: TypeAlias = "str | os.PathLike[str] | ClientAPI"
"""A folder, the `http://` or `https://` address of a Chroma server, or a client."""

LOCK = "m3rag.lock"


class Place:
    """A Chroma client, and the folder of the side file.

    Args:
        where: A folder, a server's address or a client.
        side: The folder of the side file; needed but where `where` is a folder, which is then its default.
        collection: The collection's name.

    Raises:
        InputError: If `side` is missing, or the name is none that Chroma takes.
    """

    def __init__(self, where: Where, *, side: str | os.PathLike[str] | None, collection: str) -> None:
        self._where = where
        self.collection = collection
        self.is_folder = isinstance(where, str | os.PathLike) and not _is_url(where)
        self.name = os.fspath(where) if isinstance(where, str | os.PathLike) else f"{type(where).__name__} given"
        if side is None and not self.is_folder:
            raise InputError(
                f"the lexical and ColBERT legs of {self.name} need a folder on this machine: give it as side=..."
            )
        self.folder = Path(where if side is None else side)  # type: ignore[arg-type]
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: give a folder")
        # What Chroma asks of a name, and short enough to be part of a file's.
        allowed = all(c.isascii() and (c.isalnum() or c in "._-") for c in collection)
        if not allowed or not 3 <= len(collection) <= 200 or not (collection[0] + collection[-1]).isalnum():
            raise InputError(
                f"collection {collection!r}: 3 to 200 of a-z A-Z 0-9 . _ -, beginning and ending with a letter or digit"
            )
        self.file = self.folder / f"m3rag-{collection}.sqlite3"

    def lock(self) -> ExitStack:
        """Keep every other writer out, until what is returned is closed.

        Raises:
            IndexLockedError: If another process, or another store of this one, has the collection.
            StoreError: If a folder cannot be made, or nothing may be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"no index can be made at {self.folder}: {error}") from error
        held = ExitStack()
        try:
            if self.is_folder:
                # Chroma lets one process at a time write a folder: the lock is shared by this
                # process's stores of different collections in it.
                folder = Path(os.fspath(self._where)).resolve()  # type: ignore[arg-type]
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(folder / LOCK, timeout=0, thread_local=False, is_singleton=True))
            held.enter_context(FileLock(f"{self.file}.lock", timeout=0, thread_local=False))
        except Timeout as error:
            held.close()
            raise IndexLockedError(
                f"the index at {self.folder} is in use by another process, or by another store of this one: "
                f"close it (or stop that process) and try again"
            ) from error
        except OSError as error:
            held.close()
            raise StoreError(
                f"the index at {self.folder} cannot be opened ({error}): this user needs write permission on "
                f"{self._where if self.is_folder else self.folder} and all in it, since it is locked to be read, too; "
                "give it that, or copy the folder to where you may write"
            ) from error
        except BaseException:
            held.close()
            raise
        return held

    def connect(self, held: ExitStack) -> ClientAPI:
        """The client; one of our making is closed with `held`.

        Raises:
            InputError: If this process has another client on the folder.
            StoreError: If Chroma cannot be reached.
        """
        where = self._where
        if not isinstance(where, str | os.PathLike):
            return where
        # Imported here: it takes a second, and naming a store needs none of it.
        try:
            import chromadb  # noqa: PLC0415
            from chromadb.config import Settings  # noqa: PLC0415
        except ImportError as error:
            raise ImportError('ChromaStore needs chromadb: pip install "m3rag[chroma]"') from error

        settings = Settings(anonymized_telemetry=False)
        try:
            client = (
                chromadb.PersistentClient(Path(where).resolve(), settings=settings)
                if self.is_folder
                else chromadb.HttpClient(**_address(os.fspath(where)), settings=settings)
            )
        except InputError:
            raise
        except Exception as error:
            if "already exists" in str(error):
                raise InputError(
                    f"this process has a Chroma client of its own on {self.name}: give that client with "
                    f"side={self.name!r} in place of the path"
                ) from error
            remedy = "is the server running?"
            if self.is_folder:
                _forget_failed(str(Path(where).resolve()))
                remedy = (
                    "is the folder Chroma's? If its chroma.sqlite3 is damaged, restore it from a backup, or delete the "
                    "folder and ingest again"
                )
            raise StoreError(f"Chroma at {self.name} cannot be opened ({error}): {remedy}") from error
        held.callback(_close, client)
        return client


def _forget_failed(folder: str) -> None:
    """Let the next client on a folder start anew: chromadb 1.5 keeps one that failed to, and hands it out once more."""
    from chromadb.api.shared_system_client import SharedSystemClient  # noqa: PLC0415

    # Names of chromadb's own: a version without them is left as it is.
    used = getattr(SharedSystemClient, "_identifier_to_refcount", {folder: 1})
    if folder not in used:  # else somebody's client is at work there
        getattr(SharedSystemClient, "_identifier_to_system", {}).pop(folder, None)


def _close(client: Any) -> None:
    client.close()
    # Over HTTP, chromadb 1.5 leaves the connections open, and those of the client it keeps inside.
    for one in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(one, "_server", None), "_session", None)
        if session is not None:
            session.close()


def _is_url(where: str | os.PathLike[str]) -> bool:
    return isinstance(where, str) and where.startswith(("http://", "https://"))


def _address(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    if not parts.hostname or parts.path.strip("/") or parts.query:
        raise InputError(f"{url}: give http://HOST:PORT, or a chromadb.HttpClient for anything beyond that")
    tls = parts.scheme == "https"
    return {"host": parts.hostname, "port": port or (443 if tls else 8000), "ssl": tls}
