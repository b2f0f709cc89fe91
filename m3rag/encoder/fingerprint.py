"""A hash that changes whenever the numbers of a model would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

BLOCK = 1 << 16


def fingerprint(options: Mapping[str, object], *, folder: Path | None = None, files: Iterable[Path] = ()) -> str:
    """The fingerprint of a model.

    Small files are hashed whole; of large ones 64 blocks spread over the file, since hashing
    gigabytes at every start would cost seconds and any training step changes them all.

    Args:
        options: JSON values on which the numbers depend.
        folder: Where the files are; how they are named there counts too, where the folder is does not.
        files: Files of the model, in an order that is always the same.
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder or '').as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in range(0, size, max(size // 64, BLOCK)):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]
