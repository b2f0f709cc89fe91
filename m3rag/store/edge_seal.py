"""The seal of a closed index: `seal.json`, by which the next open finds files that were cut, changed or lost.

The engine checks little: of a truncated file it makes an empty one and forgets what it held, or it
panics. So a closed index lists its files with their sizes, and with digests of those up to 1 MiB
(the engine's own bookkeeping; the contents of larger ones, vectors and payloads, are not read at
open). The seal is broken before the engine opens the files, so that it is never older than they are;
an index whose process was killed has none. It also carries the `revision` over to the next open.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from m3rag.errors import StoreError

SEAL = "seal.json"
PARTIAL_SEAL = "seal.json.partial"
DIGEST_UP_TO = 1 << 20  # bytes; some 15 MB of a fresh index, 20 ms


def write_seal(folder: Path, contents: Iterable[Path], *, revision: str) -> None:
    """Seal a folder: list some files within it, and all files in some folders within it.

    Raises:
        StoreError: If a file cannot be read, or the seal not written.
    """
    try:
        paths = sorted(path for content in contents for path in (content, *content.rglob("*")) if path.is_file())
        files = {path.relative_to(folder).as_posix(): _state(path) for path in paths}
        partial = folder / PARTIAL_SEAL
        with partial.open("w", encoding="utf-8") as file:
            json.dump({"revision": revision, "files": files}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / SEAL)
    except OSError as error:
        raise StoreError(
            f"the index at {folder} was not sealed ({error}): what was written is kept; free room there, and open it"
        ) from error


def break_seal(folder: Path) -> str | None:
    """Compare the files with the seal, if there is one, and remove it.

    Returns:
        The revision that was sealed; None without a seal.

    Raises:
        StoreError: If a file is not as it was when the index was closed.
    """
    seal = folder / SEAL
    try:
        damage, revision = _damage(folder, seal.read_bytes())
        # Of two that open at once, the one sees what the other changes after it has broken the seal.
        if damage and seal.exists():
            raise StoreError(
                f"the index at {folder} is damaged: {damage}; restore it from a backup, or delete it and ingest again "
                f"(to see what can still be read, delete {SEAL})"
            )
        seal.unlink()
        return revision
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"the index at {folder} cannot be opened: {error}") from error


def _damage(folder: Path, content: bytes) -> tuple[str | None, str | None]:
    """What is damaged, if anything is, and the sealed revision."""
    try:
        seal = json.loads(content)
        listed = {str(name): (int(size), digest) for name, (size, digest) in seal["files"].items()}
        revision = str(seal["revision"])
    except (ValueError, TypeError, AttributeError, KeyError):
        return f"{folder / SEAL} is no list of files", None
    return _damaged_file(folder, listed), revision


def _damaged_file(folder: Path, listed: Mapping[str, tuple[int, str | None]]) -> str | None:
    for name, (size, digest) in sorted(listed.items()):
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        found, found_digest = _state(path)
        if found != size:
            return f"{path} has {found} bytes, it had {size}"
        if found_digest != digest:
            return f"{path} has other contents than when the index was closed"
    return None


def _state(path: Path) -> tuple[int, str | None]:
    size = path.stat().st_size
    return size, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if size <= DIGEST_UP_TO else None
