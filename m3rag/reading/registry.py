"""Which reader reads which file, and what every file goes through whatever its format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3rag.errors import InputError, ReadError
from m3rag.reading.content import Content
from m3rag.reading.detect import KINDS, container_of, text_kind
from m3rag.reading.discover_paths import document_id, unreadable
from m3rag.reading.formats import FORMATS, SUPPORTED_SUFFIXES, Format, formats_known
from m3rag.reading.hygiene import clean
from m3rag.reading.hygiene_edits import Edited
from m3rag.types import Document, Heading, Metadata, Page

MAX_BYTES = 200_000_000

_REMEDIES = {
    "ole2": "save it as .docx, .pptx or .xlsx, without a password",
    "zip": "unpack it and ingest the files in it",
    "png": "run OCR on it",
    "jpeg": "run OCR on it",
    "tiff": "run OCR on it",
    "gzip": "unpack it and ingest the files in it",
    "7z": "unpack it and ingest the files in it",
    "rar": "unpack it and ingest the files in it",
}


def read(
    path: str | Path,
    *,
    root: str | Path | None = None,
    max_bytes: int | None = MAX_BYTES,
    password: str | None = None,
    formats: Sequence[Format] | None = None,
) -> Document:
    """Read a file as a document.

    The content decides the format where it shows one (see `detect`), among text formats the suffix.

    Args:
        path: The file.
        root: The folder that the document's id is relative to; see `document_id` for None.
        max_bytes: Larger files are refused; None for no limit.
        password: For encrypted files; the others pass it over.
        formats: What can be read; the built-in and registered formats if None.

    Returns:
        The document. Its text is as written, with line feeds as line ends and without hidden
        characters; how many there were is among the warnings.

    Raises:
        InputError: There is no such file, or it is not below `root`.
        ReadError: The file is empty, damaged, encrypted, too large, not permitted or of no known
            format; the message begins with the path.
    """
    path = Path(path)
    identity = document_id(path, root=root)
    data = _bytes(path, max_bytes)
    try:
        content = parse(data, name=path.name, password=password, formats=formats)
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


def parse(
    data: bytes, *, name: str = "", password: str | None = None, formats: Sequence[Format] | None = None
) -> Content:
    """Read bytes that are in memory, such as an upload.

    Args:
        data: The whole file.
        name: Its name, for the suffix.
        password: For encrypted files; the others pass it over.
        formats: What can be read; the built-in and registered formats if None.

    Returns:
        The content, without hidden characters.

    Raises:
        ReadError: As `read`, without the path.
    """
    if not data:
        raise ReadError("is empty (0 bytes)")
    suffix = Path(name).suffix.lower()
    among = formats_known() if formats is None else tuple(formats)
    found = _format_of(suffix, data, among)
    content = _hygienic(_parse(found, data, password))
    if not content.text.strip():
        raise ReadError("is empty: it has no text but white space")
    named = next((f for f in among if suffix in f.suffixes), found)
    if named is found:
        return content
    told = f"read as {found.name}, which it is by its content, though its suffix is {suffix}"
    return replace(content, warnings=(*content.warnings, told))


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
        raise unreadable(path, error) from error


def _format_of(suffix: str, data: bytes, formats: Sequence[Format]) -> Format:
    for known in formats:
        if known.magic and data.startswith(known.magic):
            return known
    named = next((f for f in formats if suffix in f.suffixes), None)
    kind = container_of(data)
    if not kind and named is not None and named.is_text:
        return named
    kind = kind or text_kind(data)
    found = next((f for f in formats if kind in f.kinds), None)
    # A file of the suffix's format that is too damaged to be known: its reader says what is wrong with it.
    if named is not None and not named.is_text and (found is None or kind in ("text", "zip", "ole2")):
        return named
    if found is not None:
        return found
    if kind == "text":
        supported = " ".join(sorted(s for f in formats for s in f.suffixes))
        raise ReadError(f"is of no known format ({suffix or 'no suffix'}); supported are {supported}")
    other = f", not {named.name}" if named is not None else ", which is not read"
    raise ReadError(f"is {KINDS[kind]}{other}; {_REMEDIES.get(kind, 'leave it out')}")


def _parse(found: Format, data: bytes, password: str | None) -> Content:
    try:
        return found.reader(data, password=password) if found.takes_password else found.reader(data)
    except ReadError:
        raise
    except Exception as error:
        # A parser of damaged files may raise anything, and one file must not end an ingest.
        raise ReadError(f"is damaged or unusual: its parser failed ({type(error).__name__}: {error})") from error


def _hygienic(content: Content) -> Content:
    edited, removed = clean(content.text)
    title = clean(content.title)[0].text
    metadata = {k: clean(v)[0].text if isinstance(v, str) else v for k, v in content.metadata.items()}
    told = (f"removed {removed:,} hidden character{'s' if removed > 1 else ''}",) if removed else ()
    return replace(
        content,
        text=edited.text,
        title=title,
        pages=_moved_pages(content.pages, edited),
        headings=_moved_headings(content, edited),
        metadata=_same_or(content.metadata, metadata),
        warnings=(*content.warnings, *told),
    )


def _same_or(before: Metadata, after: Metadata) -> Metadata:
    return before if before == after else after


def _moved_pages(pages: tuple[Page, ...], edited: Edited) -> tuple[Page, ...]:
    if not edited.passes:
        return pages
    return tuple(Page(p.number, edited.forward(p.start), edited.forward(p.end)) for p in pages)


def _moved_headings(content: Content, edited: Edited) -> tuple[Heading, ...]:
    if not edited.passes:
        return content.headings
    moved = []
    for heading in content.headings:
        start, end = edited.forward(heading.start), edited.forward(heading.end)
        exact = content.text[heading.start : heading.end] == heading.text
        text = edited.text[start:end] if exact else clean(heading.text)[0].text
        if start < end and text.strip():
            moved.append(replace(heading, text=text, start=start, end=end))
    return tuple(moved)


__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "SUPPORTED_SUFFIXES",
    "Format",
    "parse",
    "read",
]
