"""Find the files to read below the paths that a person gives."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3rag.errors import InputError
from m3rag.reading.discover_paths import WINDOWS, document_id, is_device, is_hidden, is_link, own_root
from m3rag.reading.discover_rules import FolderRules, Rules
from m3rag.reading.formats import supported_suffixes


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search for files.

    Attributes:
        files: `(root, path)` of each file to read; `read(path, root=root)` reads it.
        skipped: What was seen in a folder and is not read: other formats, links, names that Windows
            takes for devices, folders that may not be entered. What is hidden or left out by rule is not
            mentioned.
        unreadable: Those of `skipped` that are folders which could not be listed.
        folders: The roots that were given as folders, and so were looked through as a whole.
    """

    files: tuple[tuple[Path, Path], ...]
    skipped: tuple[Path, ...]
    unreadable: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()


def find_files(
    paths: Iterable[str | Path] | str | Path,
    *,
    suffixes: Collection[str] | None = None,
    rules: Rules | None = None,
    without: Collection[Path] = (),
) -> Found:
    """Find files to read.

    Folders are walked in sorted order; hidden names (`.name`, `~$name`, on Windows those with the
    attribute) are passed over. Links, and Windows' junctions, inside a folder are not followed, so that
    nothing outside of it is read, nothing is read twice and nothing goes in circles; a folder that is
    given may be a link itself. A file given by itself is taken whatever its name, and whatever the rules
    say; a file reached twice is listed once.

    Args:
        paths: Files and folders.
        suffixes: Which files of a folder to take; by default those of all formats known.
        rules: Which of these are meant; all by default.
        without: Folders to pass over wherever they lie, such as that of the index itself.

    Returns:
        The files with their roots (a folder is the root of what is below it; for a file given by
        itself see `document_id`), and what was skipped.

    Raises:
        InputError: A path does not exist or may not be looked at, a rule is malformed, or files of two roots
            would have the same id.
    """
    files: dict[str, tuple[Path, Path]] = {}
    folders: list[Path] = []
    wanted = supported_suffixes() if suffixes is None else suffixes
    walk = _Walk({os.path.realpath(path) for path in without})
    for given in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(given)
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            folders.append(path)
            # Below a root nothing is a link: its names are real where the root's is.
            real, start = os.path.realpath(path), len(os.path.join(path, ""))
            start = 0 if str(path) == "." else start
            for inner in walk.below(path, (rules or Rules()).below(path)):
                if inner.suffix.lower() in wanted:
                    files.setdefault(os.path.join(real, str(inner)[start:]), (path, inner))
                else:
                    walk.skipped.append(inner)
        elif stat.S_ISREG(mode):
            files.setdefault(os.path.realpath(path), (own_root(path), path))
        else:
            raise InputError(f"{path}: is neither a file nor a folder; give one of these")
    if len({root for root, _ in files.values()}) > 1:
        _check_ids(files.values())
    return Found(tuple(files.values()), tuple(walk.skipped), tuple(walk.unreadable), tuple(folders))


def _mode(path: Path) -> int:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: there is no such file or folder; check the path") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: could not be looked at ({why}); check the path, and the permissions of the folders above it"
        ) from error


@dataclass(slots=True)
class _Walk:
    """A walk through folders, and what it passed over."""

    without: set[str]
    skipped: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)

    def below(self, root: Path, rules: FolderRules) -> Iterator[Path]:
        pending = [(root, rules.entering(root))]
        while pending:
            folder, here = pending.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = sorted((e for e in listed if not is_hidden(e)), key=lambda e: e.name)
            except OSError:
                if folder == root:
                    raise InputError(f"{root}: the folder cannot be listed; check its permissions") from None
                self.skipped.append(folder)
                self.unreadable.append(folder)
                continue
            inner = []
            for entry in entries:
                path = folder / entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if here.leaves_out(path, is_folder=is_folder):
                    continue
                if is_link(entry) or (WINDOWS and is_device(entry.name)):
                    self.skipped.append(path)
                elif is_folder:
                    inner.append(path)
                elif entry.is_file():
                    yield path
            for path in reversed(inner):
                if not self.without or os.path.realpath(path) not in self.without:
                    pending.append((path, here.entering(path)))


def _check_ids(files: Iterable[tuple[Path, Path]]) -> None:
    seen: dict[str, tuple[Path, Path]] = {}
    for root, path in files:
        try:
            identity = document_id(path, root=root)
        except InputError:  # a bad name is that file's own error, when it is read
            continue
        other_root, other = seen.setdefault(identity, (root, path))
        if other != path and other_root != root:
            raise InputError(
                f"{other} and {path} would both be the document {identity!r}; give the folder that holds both"
            )
