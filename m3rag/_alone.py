"""A folder that one process at a time writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from m3rag.errors import InputError

LOCK = ".lock"


@contextmanager
def writing_alone(folder: Path, *, another: str) -> Iterator[None]:
    """Hold a folder, made where there is none: another process would write among our files.

    Args:
        folder: Holds the file that is locked, from then on.
        another: What else may be given, such as `another --out`.

    Raises:
        InputError: If another run holds it, or it cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{folder} is being written by another run: wait for that one, or give {another}") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error}): make room on its disk, or give {another}") from error
    try:
        yield
    finally:
        lock.release()
