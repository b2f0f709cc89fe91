"""The name under which an upload is known: of what a client sent, what is a name and nothing else."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

MOST_BYTES = 150
"""Of a name in UTF-8: file systems take 255, with room for what tools add."""

_FORBIDDEN = frozenset('<>:"/\\|?*')  # on Windows
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))]
)
_ESCAPED = "%22"  # what browsers make of a quotation mark in a form's file name

_JOINERS = "\u200c\u200d"  # of Persian words and of emoji
_BLANKS = " \u3000\u00a0"
_JOINED = re.compile(f"(?:(?<=([^.{_BLANKS}{_JOINERS}])))?[{_JOINERS}]+(?=([^.{_BLANKS}{_JOINERS}]))?")


def _is_invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return char not in _JOINERS and (category[0] == "C" or category in ("Zl", "Zp"))


def _joined(found: re.Match[str]) -> str:
    # Between letters of ASCII they join nothing: there they would only make two names that look the same.
    before, after = found.groups()
    return found[0][0] if before and after and not (before + after).isascii() else ""


def upload_name(given: str) -> str:
    r"""A file name that any system takes, as near as may be to the given one.

    Path parts (of `/` and of `\`), control and invisible characters (but for joiners within a word or an emoji), what
    Windows forbids, also as forms escape it, and dots and spaces at the ends are left out; Unicode is composed (NFC); a
    long name is cut before its suffix.

    Args:
        given: As the client sent it.

    Returns:
        The name; `document` with the suffix where nothing else is left.
    """
    last = given.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if not _is_invisible(c) and c not in _FORBIDDEN)
    while _ESCAPED in kept:
        kept = kept.replace(_ESCAPED, "")
    kept = _JOINED.sub(_joined, unicodedata.normalize("NFC", kept))
    name = unicodedata.normalize("NFC", kept).strip(f".{_BLANKS}")
    if kept.lstrip(_BLANKS).startswith(".") and "." not in name:  # `.pdf` is a suffix without a name
        name = f"document.{name}" if name else "document"
    path = PurePosixPath(name or "document")
    stem, suffix = path.stem, path.suffix if len(path.suffix.encode()) <= 20 else ""
    if not suffix:
        stem = path.name
    if stem.partition(".")[0].casefold() in _DEVICES:
        stem = "_" + stem
    room = MOST_BYTES - len(suffix.encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(f" .{_JOINERS}")
    return unicodedata.normalize("NFC", (stem or "document") + suffix)
