"""The name under which an upload is known: of what a client sent, what is a name and nothing else."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

MOST_BYTES = 150
"""Of a name in UTF-8: file systems take 255, with room for what tools add."""

_FORBIDDEN = frozenset('<>:"/\\|?*')  # on Windows
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))]
)


def _is_invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] == "C" or category in ("Zl", "Zp")


def upload_name(given: str) -> str:
    r"""A file name that any system takes, as near as may be to the given one.

    Path parts (of `/` and of `\`), control and invisible characters, what Windows forbids, and dots and
    spaces at the ends are left out; Unicode is composed (NFC); a long name is cut before its suffix.

    Args:
        given: As the client sent it.

    Returns:
        The name; `document` with the suffix where nothing else is left.
    """
    last = given.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if not _is_invisible(c) and c not in _FORBIDDEN)
    blanks = " \u3000\u00a0"
    name = unicodedata.normalize("NFC", kept).strip(f".{blanks}")
    if kept.lstrip(blanks).startswith(".") and "." not in name:  # `.pdf` is a suffix without a name
        name = f"document.{name}" if name else "document"
    path = PurePosixPath(name or "document")
    stem, suffix = path.stem, path.suffix if len(path.suffix.encode()) <= 20 else ""
    if not suffix:
        stem = path.name
    if stem.partition(".")[0].casefold() in _DEVICES:
        stem = "_" + stem
    room = MOST_BYTES - len(suffix.encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .")
    return unicodedata.normalize("NFC", (stem or "document") + suffix)
