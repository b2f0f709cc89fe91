"""EPUB's table of contents: what it calls the chapters, for those without a heading of their own."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import unquote

from selectolax.lexbor import LexborHTMLParser

from m3rag.reading.archive import Archive
from m3rag.reading.joining import Part
from m3rag.reading.xml_tree import attribute, child, local, parse_part
from m3rag.types import Heading


def labels(archive: Archive, navigation: Iterable[str]) -> dict[str, str]:
    """The first label of each file that a table of contents points to.

    Args:
        archive: The book.
        navigation: The files with its tables of contents, EPUB 3's pages and EPUB 2's NCX.

    Returns:
        Labels by the name of the file in the archive.
    """
    found: dict[str, str] = {}
    for part in navigation:
        if archive.find(part) is not None:
            for name, label in (_of_ncx if part.lower().endswith(".ncx") else _of_page)(archive, part):
                found.setdefault(name, " ".join(label.split()))
    return found


def with_heading(part: Part, label: str) -> Part:
    """A chapter without headings takes the label as one, if its text begins with it.

    Args:
        part: The chapter.
        label: What the table of contents calls it; may be empty.

    Returns:
        The chapter, its first line (or lines) being a heading.
    """
    wanted, at = "".join(label.casefold().split()), 0
    if part.headings or not wanted:
        return part
    while wanted and at < len(part.text):
        letter = part.text[at].casefold()
        at += 1
        if not letter.isspace():
            if not wanted.startswith(letter):
                return part
            wanted = wanted.removeprefix(letter)
    # A label may begin a sentence too.
    if wanted or part.text[at : at + 1] not in ("", "\n"):
        return part
    return replace(part, headings=(Heading(part.text[:at], 1, 0, at),))


def resolved(base: str, reference: str) -> str:
    """The entry that a reference of another entry means, without its fragment."""
    path = unquote(reference.partition("#")[0])
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(base), path)).lstrip("/")


def _of_page(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    for link in LexborHTMLParser(archive.read(part)).css("nav a[href]"):
        yield resolved(part, link.attributes.get("href") or ""), link.text()


def _of_ncx(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    for point in parse_part(archive, part, doctype=True).iter():
        if local(point) == "navPoint":
            content, text = child(point, "content"), child(point, "navLabel", "text")
            if content is not None and text is not None:
                yield resolved(part, attribute(content, "src") or ""), text.text or ""
