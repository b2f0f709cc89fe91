"""The folder of a Qdrant Edge index: made in steps that a kill between any two leaves repairable.

A finished index is `manifest.json` and `shard/`, which holds the engine's files and `tokens.sqlite`, and `seal.json`
while it is closed. While it is made there is `shard.partial/`, in which nothing can have been stored; a `shard/` is
never deleted.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import qdrant_edge as qdrant
from filelock import FileLock

from m3rag._version import __version__
from m3rag.errors import IndexLockedError, IndexMissingError, InputError, StoreError
from m3rag.store.codec import codec_named
from m3rag.store.edge_filters import KEYWORD_FIELDS
from m3rag.store.edge_points import schema
from m3rag.store.edge_seal import PARTIAL_SEAL, SEAL, break_seal, write_seal
from m3rag.store.edge_tokens import TOKENS, TokenFile
from m3rag.store.manifest import MANIFEST, PARTIAL_MANIFEST, check_model, missing, read_manifest, write_manifest
from m3rag.store.protocol import Manifest
from m3rag.store.sqlite_file import ROOM_BYTES
from m3rag.types import ModelInfo

SHARD = "shard"
PARTIAL_SHARD = "shard.partial"
SEALED = (
    "edge_config.json",
    "segments",
    TOKENS,
)  # not the log, which the engine's own thread may touch and which has checksums
DERIVED = {"files.sqlite", "files.sqlite-journal", "bm25.sqlite", "bm25.sqlite-journal"}
MAKING = ".making"
"""Locked by who makes the index, and gone once it is made."""

TOKENS_SINCE = 4
"""The first format with a file of token vectors."""

OURS = {MANIFEST, PARTIAL_MANIFEST, SHARD, PARTIAL_SHARD, SEAL, PARTIAL_SEAL, MAKING, *DERIVED}

_CODES = "5|19" if os.name == "nt" else "1|13|30"
NO_PERMISSION = re.compile(rf"PermissionDenied|ReadOnlyFilesystem|os error ({_CODES})\b")
"""What the engine says where it may not write."""

_WANTS = "8|14|112" if os.name == "nt" else "12|23|24|27|28"
NO_RESOURCES = re.compile(rf"Out of memory|os error ({_WANTS})\b")
"""What the engine says where memory, open files or room on the disk are at an end."""


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder that a path names, whatever becomes of the working directory.

    Raises:
        InputError: If no folder can have such a name.
    """
    try:
        folder = Path(path).absolute()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            folder.stat()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path!r:.80} cannot be the folder of an index ({error}): give another") from error
    return folder


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index, perhaps a damaged one.

    Raises:
        StoreError: If this user may not look into it.
    """
    with _permitted(folder):
        return (folder / MANIFEST).exists() or (folder / SHARD).exists()


def require_room(folder: Path) -> None:
    """Refuse to write where the disk is nearly full: the engine's mapped files would end the process, not the call.

    Raises:
        StoreError: If less than `ROOM_BYTES` are left.
    """
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < ROOM_BYTES:
        raise StoreError(
            f"the disk of the index {folder.name} has only {free / 1e6:,.0f} MB left, and the engine needs room ahead: "
            f"free {ROOM_BYTES / 1e6:,.0f} MB; what was written before is kept"
        )


def create_folder(folder: Path, model: ModelInfo, *, codec: str) -> Manifest:
    """Make the folder of an empty index, or finish one whose making was interrupted.

    Raises:
        InputError: If the path is a file, holds foreign files, or already is an index.
        ConfigurationError: If there is no such codec.
    """
    codec_named(codec)
    require_room(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the index")
    _require_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _making_alone(folder):
            _require_free(folder)
            _make_partial_shard(folder, model)
            manifest = Manifest(model=model, m3rag_version=__version__, codec=codec)
            write_manifest(folder, manifest)
            (folder / PARTIAL_SHARD).rename(folder / SHARD)
    except OSError as error:
        raise StoreError(f"no index can be made at {folder}: {error}") from error
    return manifest


def _require_free(folder: Path) -> None:
    if is_index(folder):
        raise InputError(f"there is already an index at {folder}: open it, or give another folder")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OURS) if folder.exists() else []
    if foreign:
        raise InputError(
            f"{folder} holds files that are not of an index ({', '.join(foreign[:3])}): give a new or empty folder"
        )


@contextmanager
def _making_alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else makes this index; who comes here then looks again at what there is."""
    with FileLock(folder / MAKING):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no file that is open; there its lock does when it is released
                (folder / MAKING).unlink()


def check_folder(folder: Path, model: ModelInfo | None) -> Manifest:
    """Read whose index a folder holds, and finish its making if that was interrupted.

    Raises:
        IndexMissingError: If there is none.
        IndexMismatchError: If it is of another model, or of a newer format.
        StoreError: If the manifest or the shard is damaged or missing, or may not be read.
    """
    with _permitted(folder):
        return _checked(folder, model)


def _checked(folder: Path, model: ModelInfo | None) -> Manifest:
    if folder.is_file():
        raise IndexMissingError(f"there is no index at {folder}, which is a file: give the folder of an index")
    if not is_index(folder):
        raise missing(folder)
    if not (folder / MANIFEST).exists():
        raise StoreError(
            f"{folder / MANIFEST} is missing, so the model of this index is unknown: restore it from a backup, "
            f"or delete the folder and ingest again"
        )
    manifest = read_manifest(folder)
    if model is not None:
        check_model(folder, manifest, model)
    if not (folder / SHARD).exists():
        with _making_alone(folder):
            _finish(folder, manifest)
    return manifest


def _finish(folder: Path, manifest: Manifest) -> None:
    if (folder / SHARD).exists():  # by now
        return
    if not (folder / PARTIAL_SHARD).exists():
        raise StoreError(f"{folder / SHARD} is missing: restore it from a backup, or delete {folder} and ingest again")
    _make_partial_shard(folder, manifest.model)
    (folder / PARTIAL_SHARD).rename(folder / SHARD)


def load_shard(folder: Path, manifest: Manifest) -> tuple[qdrant.EdgeShard, str | None]:
    """Open the engine on a finished folder; with it the revision at its last close, None after a kill.

    Raises:
        IndexLockedError: If another process, or another store of this one, has it open.
        StoreError: If it is not as it was closed, the engine cannot read it, or may not write.
    """
    with _permitted(folder):
        revision = break_seal(folder)
    try:
        # Of older formats the schema is another until they are upgraded.
        config = schema(manifest.model) if manifest.format >= TOKENS_SINCE else None
        return qdrant.EdgeShard.load(str(folder / SHARD), config), revision
    except BaseException as error:
        if not is_of_engine(error):
            raise
        # The engine has one error type; its lock is that of the write-ahead log. 33 is Windows'.
        if "WAL" in str(error) and ("WouldBlock" in str(error) or "os error 33" in str(error)):
            raise IndexLockedError(
                f"the index at {folder} is in use by another process, or by another store of this one: "
                f"close it (or stop that process) and try again"
            ) from error
        if lacks_permission(error):
            raise _no_permission(folder, error) from error
        if NO_RESOURCES.search(str(error)):
            raise StoreError(
                f"the index at {folder} cannot be opened for want of memory, open files or room on the disk ({error}); "
                "it is as it was: close other programs, or raise this process's limits (ulimit -a shows them)"
            ) from error
        raise StoreError(
            f"the index at {folder} cannot be opened ({error}): restore it from a backup, or delete it and ingest again"
        ) from error


def lacks_permission(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that files may not be written or read."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return True
        if is_of_engine(error) and not isinstance(error, StoreError) and NO_PERMISSION.search(str(error)):
            return True
        error = error.__cause__
    return False


@contextmanager
def _permitted(folder: Path) -> Iterator[None]:
    try:
        yield
    except (StoreError, OSError) as error:
        if lacks_permission(error):
            raise _no_permission(folder, error.__cause__ or error) from error
        raise


def _no_permission(folder: Path, error: BaseException) -> StoreError:
    return StoreError(
        f"the index at {folder} cannot be opened ({error}): this user needs write permission on {folder} and all in "
        "it, since the engine locks it to read, too; give it that, or copy the folder to where you may write"
    )


def tokens_path(folder: Path, manifest: Manifest) -> Path:
    """The file of an index's token vectors, made where a format before them had none.

    Raises:
        StoreError: If it is not there, or cannot be made.
    """
    path = folder / SHARD / TOKENS
    if not path.is_file():
        if manifest.format >= TOKENS_SINCE:
            raise StoreError(
                f"{path} is missing: restore the index's folder from a backup, or delete it and ingest again"
            )
        TokenFile.create(path, {})
    return path


def close_shard(folder: Path, shard: qdrant.EdgeShard, *, revision: str) -> None:
    """Put all on disk, seal the folder, and release the lock: also if the first two fail, as after a kill then."""
    try:
        shard.flush()
        # Under the lock: once it is released, another process may change the files.
        names = [name for name in SEALED if not (folder / SHARD / f"{name}-wal").exists()]  # which a reader left behind
        write_seal(folder, [folder / SHARD / name for name in names], revision=revision)
    finally:
        shard.close()


def is_of_engine(error: BaseException) -> bool:
    """Whether an exception is the engine's: its errors, and its panics, which are no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def sync_log(folder: Path) -> None:
    """Put the write-ahead log on disk: all that makes a change survive a loss of power.

    A flush of the whole shard does it too, in 70-800 ms against 2-10 ms.
    """
    log = folder / SHARD / "wal"
    for name in [*os.listdir(log), "."]:
        try:
            handle = os.open(log / name, os.O_RDONLY)
        except FileNotFoundError:  # a segment in the making, renamed by the engine's own thread
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _make_partial_shard(folder: Path, model: ModelInfo) -> None:
    partial = folder / PARTIAL_SHARD
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        shard = qdrant.EdgeShard.create(str(partial), schema(model))
        for field in KEYWORD_FIELDS:
            shard.update(qdrant.UpdateOperation.create_field_index(field, qdrant.PayloadSchemaType.Keyword))
        shard.close()
        TokenFile.create(partial / TOKENS, {})
    except Exception as error:
        raise StoreError(f"no index can be made at {folder}: {error}") from error
