"""Find the files to read below the paths that a person gives."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from m3rag.errors import InputError
from m3rag.reading.registry import SUPPORTED_SUFFIXES, document_id, own_root


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search for files.

    Attributes:
        files: `(root, path)` of each file to read; `read(path, root=root)` reads it.
        skipped: What was seen in a folder and is not read: other formats, symbolic links,
            folders that may not be entered. Hidden files are not mentioned.
    """

    files: tuple[tuple[Path, Path], ...]
    skipped: tuple[Path, ...]


def find_files(paths: Iterable[str | Path] | str | Path, *, suffixes: Collection[str] = SUPPORTED_SUFFIXES) -> Found:
    """Find files to read.

    Folders are walked in sorted order; hidden names are passed over and links inside a folder are
    not followed, so that nothing outside of it is read and nothing is read twice. A file given by
    itself is taken whatever its name; a file reached twice is listed once.

    Args:
        paths: Files and folders.
        suffixes: Which files of a folder to take.

    Returns:
        The files with their roots (a folder is the root of what is below it; for a file given by
        itself see `document_id`), and what was skipped.

    Raises:
        InputError: A path does not exist, or two files would have the same id.
    """
    files: dict[Path, tuple[Path, Path]] = {}
    skipped: list[Path] = []
    for given in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(given)
        if path.is_dir():
            for inner in _walk(path, skipped):
                if inner.suffix.lower() in suffixes:
                    files.setdefault(inner.resolve(), (path, inner))
                else:
                    skipped.append(inner)
        elif path.is_file():
            files.setdefault(path.resolve(), (own_root(path), path))
        elif path.exists():
            raise InputError(f"{path}: is neither a file nor a folder; give one of these")
        else:
            raise InputError(f"{path}: there is no such file or folder; check the path")
    _check_ids(files.values())
    return Found(tuple(files.values()), tuple(skipped))


def _walk(root: Path, skipped: list[Path]) -> Iterator[Path]:
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            if folder == root:
                raise InputError(f"{root}: the folder cannot be listed; check its permissions") from None
            skipped.append(folder)
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.is_symlink():
                skipped.append(path)
            elif entry.is_file():
                yield path
        pending.extend(folder / e.name for e in reversed(entries) if e.is_dir(follow_symlinks=False))


def _check_ids(files: Iterable[tuple[Path, Path]]) -> None:
    seen: dict[str, Path] = {}
    for root, path in files:
        identity = document_id(path, root=root)
        other = seen.setdefault(identity, path)
        if other != path:
            raise InputError(
                f"{other} and {path} would both be the document {identity!r}; give the folder that holds both"
            )
