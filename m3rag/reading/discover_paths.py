"""The names of files: what identifies one in a collection, on every system alike.

An id is made of a path and never made a path again, so no name in an index can lead anywhere.
"""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from pathlib import Path, PurePath

from m3rag.errors import InputError, ReadError

# Names that Windows takes for devices whatever their suffix, also with the digits ¹²³.
DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}) | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"
}
WINDOWS = os.name == "nt"
MOUNT_POINT = 0xA0000003  # the reparse tag of a junction, which is no symbolic link to Python


def document_id(path: str | Path, *, root: str | Path | None = None) -> str:
    r"""The identity of a file in a collection: the path below the root, with `/`, in Unicode's form NFC.

    So a folder gives the same ids on Windows, on macOS (whose names may come decomposed) and on Linux.
    Upper and lower case differ. A `\` in a name, which only POSIX allows, stays one.

    Args:
        path: The file.
        root: The folder that was ingested. None for a file given by itself: its id is relative to
            the working folder, or, outside of that, its whole path without the leading `/`: two
            files of the same name never share an id, whatever is given beside them.

    Raises:
        InputError: The file is not below the root, or its name is not Unicode.
    """
    absolute = Path(path).absolute()
    base = own_root(absolute) if root is None else Path(root).absolute()
    return id_below(absolute, base)


def id_below(absolute: PurePath, base: PurePath) -> str:
    """`document_id` of absolute paths of any system.

    Raises:
        InputError: The file is not below the base, or its name is not Unicode.
    """
    try:
        parts = absolute.relative_to(base).parts
    except ValueError as error:
        raise InputError(f"{absolute} is not below the root {base}; give a root that contains it") from error
    if base.drive and base == type(base)(base.anchor):
        # All of a drive: its files would else be those of the same path on another one.
        parts = (*base.drive.replace(":", "").replace("\\", "/").strip("/").split("/"), *parts)
    found = unicodedata.normalize("NFC", "/".join(parts))
    try:
        found.encode()
    except UnicodeEncodeError as error:
        taken = sys.getfilesystemencoding()
        locale = "" if taken == "utf-8" else f"set PYTHONUTF8=1, as names are taken for {taken} here, or "
        raise InputError(f"{absolute}: its name is not Unicode; {locale}rename the file") from error
    return found


def own_root(path: Path) -> Path:
    """The root of a file given by itself: the working folder, or the top of its drive outside of that."""
    here = Path.cwd()
    absolute = path.absolute()
    return here if absolute.is_relative_to(here) else Path(absolute.anchor)


def is_gone(path: str | Path) -> bool:
    """Whether there is nothing at a path for sure: what this user may not look at may well be there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def unreadable(path: Path, error: OSError) -> ReadError:
    """What to say of a file that was found and cannot be read."""
    if isinstance(error, FileNotFoundError):
        return ReadError(f"{path}: was removed or renamed before it was read; ingest again")
    return ReadError(f"{path}: could not be read ({error.strerror}); check its permissions")


def is_hidden(entry: os.DirEntry[str]) -> bool:
    """Whether a name in a folder is not for people: `.name`, an office program's `~$lock`, Windows' attribute."""
    if entry.name.startswith((".", "~$")):
        return True
    if not WINDOWS:
        return False
    attributes: int = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def is_link(entry: os.DirEntry[str]) -> bool:
    """Whether a name leads elsewhere: a symbolic link, or a junction of Windows."""
    if entry.is_symlink():
        return True
    return WINDOWS and getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) == MOUNT_POINT


def is_device(name: str) -> bool:
    """Whether Windows takes a name for a device, or cannot open it at all: `NUL.txt`, `report.`."""
    return name.partition(".")[0].rstrip(" ").upper() in DEVICES or name.endswith((".", " "))
