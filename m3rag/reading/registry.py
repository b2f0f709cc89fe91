"""Which reader reads which file, and what every file goes through whatever its format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from m3rag.errors import InputError, ReadError
from m3rag.reading.content import Content, Reader
from m3rag.types import Document

MAX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read.

    Attributes:
        name: For messages.
        suffixes: Lower case, with the dot.
        reader: Bytes in, `Content` out.
        magic: First bytes that name the format whatever the file is called; empty for text formats.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: Reader
    magic: bytes = b""


def _lazy(module: str, name: str) -> Reader:
    """A reader whose module, and the library behind it, is imported when a file is first read."""

    def read(data: bytes) -> Content:
        reader: Reader = getattr(import_module(f"m3rag.reading.{module}"), name)
        return reader(data)

    return read


FORMATS: tuple[Format, ...] = (
    Format("plain text", (".txt", ".text"), _lazy("text", "read_text")),
    Format("Markdown", (".md", ".markdown"), _lazy("markdown", "read_markdown")),
    Format("HTML", (".html", ".htm", ".xhtml"), _lazy("html", "read_html")),
    Format("PDF", (".pdf",), _lazy("pdf", "read_pdf"), magic=b"%PDF-"),
)
"""The built-in formats. Another one is read by passing `formats=(*FORMATS, Format(...))`."""

SUPPORTED_SUFFIXES: frozenset[str] = frozenset(s for f in FORMATS for s in f.suffixes)

# What a text format cannot begin with, to say what the file is instead of showing its bytes as text.
BINARIES = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or encrypted Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
)


def read(
    path: str | Path,
    *,
    root: str | Path | None = None,
    max_bytes: int | None = MAX_BYTES,
    formats: Sequence[Format] = FORMATS,
) -> Document:
    """Read a file as a document.

    The content decides the format where it names itself (`%PDF-`), else the suffix does.

    Args:
        path: The file.
        root: The folder that the document's id is relative to; see `document_id` for None.
        max_bytes: Larger files are refused; None for no limit.
        formats: What can be read.

    Returns:
        The document. Its text is as written, with line feeds as line ends and without hidden characters.

    Raises:
        InputError: There is no such file, or it is not below `root`.
        ReadError: The file is empty, damaged, encrypted, too large, not permitted or of no known
            format; the message begins with the path.
    """
    path = Path(path)
    identity = document_id(path, root=root)
    data = _bytes(path, max_bytes)
    try:
        if not data:
            raise ReadError("is empty (0 bytes)")
        content = _parse(_format_of(path, data, formats), data)
        if not content.text.strip():
            raise ReadError("is empty: it has no text but white space")
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error
    return Document(
        id=identity,
        text=content.text,
        content_hash=hashlib.sha256(data).hexdigest(),
        title=content.title or (content.headings[0].text if content.headings else path.name),
        pages=content.pages,
        headings=content.headings,
        metadata=content.metadata,
        warnings=content.warnings,
    )


def document_id(path: str | Path, *, root: str | Path | None = None) -> str:
    """The identity of a file in a collection, with `/` on every system.

    Args:
        path: The file.
        root: The folder that was ingested. None for a file given by itself: its id is relative to
            the working folder, or, outside of that, its whole path without the leading `/`: two
            files of the same name never share an id, whatever is given beside them.

    Raises:
        InputError: The file is not below the root.
    """
    absolute = Path(path).absolute()
    base = own_root(absolute) if root is None else Path(root).absolute()
    try:
        return absolute.relative_to(base).as_posix()
    except ValueError as error:
        raise InputError(f"{path} is not below the root {root}; give a root that contains it") from error


def own_root(path: Path) -> Path:
    """The root of a file given by itself: the working folder, or the top of its drive outside of that."""
    here = Path.cwd()
    absolute = path.absolute()
    return here if absolute.is_relative_to(here) else Path(absolute.anchor)


def _bytes(path: Path, max_bytes: int | None) -> bytes:
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file; check the path")
        if not path.is_file():
            raise InputError(f"{path}: is not a file; give a file, or use find_files for a folder")
        size = path.stat().st_size
        if max_bytes is not None and size > max_bytes:
            raise ReadError(f"{path}: has {size:,} bytes, the limit is {max_bytes:,}; split it or raise max_bytes")
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: could not be read ({error.strerror}); check its permissions") from error


def _format_of(path: Path, data: bytes, formats: Sequence[Format]) -> Format:
    for known in formats:
        if known.magic and data.startswith(known.magic):
            return known
    suffix = path.suffix.lower()
    found = next((f for f in formats if suffix in f.suffixes), None)
    if found is None:
        supported = " ".join(sorted(s for f in formats for s in f.suffixes))
        raise ReadError(f"is of no known format ({suffix or 'no suffix'}); supported are {supported}")
    if not found.magic:
        for magic, what in BINARIES:
            if data.startswith(magic):
                raise ReadError(f"is {what}, not {found.name}; give it its right suffix or export it as {found.name}")
    return found


def _parse(found: Format, data: bytes) -> Content:
    try:
        return found.reader(data)
    except ReadError:
        raise
    except Exception as error:
        # A parser of damaged files may raise anything, and one file must not end an ingest.
        raise ReadError(f"is damaged or unusual: its parser failed ({type(error).__name__}: {error})") from error
