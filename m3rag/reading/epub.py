"""EPUB: the chapters in the order of the spine, each read as the web page it is."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from selectolax.lexbor import LexborHTMLParser

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import clean_title
from m3rag.reading.content import Content
from m3rag.reading.decoding import decode
from m3rag.reading.epub_contents import labels, resolved, with_heading
from m3rag.reading.html import read_html, with_end_tags
from m3rag.reading.joining import Part, join
from m3rag.reading.xml_tree import attribute, child, local, parse_part

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_CHAPTERS = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})
# Fonts are mixed up by these to hinder taking them out of the book; nothing else is.
_FONTS = frozenset({"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"})
_PROTECTIONS = (
    ("META-INF/license.lcpl", "Readium LCP"),
    ("META-INF/sinf.xml", "Apple FairPlay"),
    ("META-INF/rights.xml", "Adobe ADEPT"),
)
_DECLARED = re.compile(rb"""\A[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""")


def read_epub(data: bytes) -> Content:
    """Read a book.

    Args:
        data: The file's bytes.

    Returns:
        The chapters joined by a blank line, with their headings; a chapter without headings that
        begins with its title in the table of contents has this as one. The table of contents
        itself is not repeated. Chapters that are missing are named in the warnings.

    Raises:
        ReadError: The book is protected by DRM, damaged, encrypted, or packed or declared in a way
            that is not safe.
    """
    archive = Archive(data)
    _refuse_protected(archive)
    book = _book(archive)
    contents = labels(archive, book.navigation)
    parts, missing, told = list[Part](), list[str](), list[str]()
    for name in book.chapters:
        if archive.find(name) is None:
            missing.append(name)
        else:
            chapter = _chapter(archive, name)
            parts.append(with_heading(Part(chapter.text, chapter.headings), contents.get(name, "")))
            told += (f"{name}: {warning}" for warning in chapter.warnings)
    joined = join(parts)
    if not joined.text:
        raise ReadError("has no chapter with text: a book of pictures; run OCR on them first")
    if missing:
        told.append(f"chapter{'s' if len(missing) > 1 else ''} missing from the file: {', '.join(missing)}")
    return Content(joined.text, title=book.title, headings=joined.headings, warnings=tuple(told))


@dataclass(frozen=True, slots=True)
class _Book:
    """The names of the chapters in order, those of the tables of contents, and the title."""

    chapters: tuple[str, ...]
    navigation: tuple[str, ...]
    title: str


def _refuse_protected(archive: Archive) -> None:
    if archive.find(_ENCRYPTION) is None:
        return
    for item in parse_part(archive, _ENCRYPTION).iter():
        if local(item) == "EncryptedData":
            method = child(item, "EncryptionMethod")
            if method is None or attribute(method, "Algorithm") not in _FONTS:
                kind = next((name for part, name in _PROTECTIONS if archive.find(part) is not None), "unknown kind")
                raise ReadError(
                    f"is protected by DRM ({kind}), which only its seller's programs can open; get a copy without it"
                )


def _book(archive: Archive) -> _Book:
    roots = parse_part(archive, _CONTAINER, doctype=True)
    package = next((attribute(e, "full-path") or "" for e in roots.iter() if local(e) == "rootfile"), "")
    root = parse_part(archive, package, doctype=True)
    manifest, spine = child(root, "manifest"), child(root, "spine")
    items = {attribute(e, "id") or "": e for e in (manifest if manifest is not None else ())}
    navigation = [n for n, e in items.items() if "nav" in (attribute(e, "properties") or "").split()]
    old = attribute(spine, "toc") if spine is not None else None
    order = [attribute(e, "idref") or "" for e in (spine if spine is not None else ())]
    chapters = [_name(package, items[i]) for i in order if i in items and i not in navigation and _is_chapter(items[i])]
    return _Book(
        chapters=tuple(dict.fromkeys(chapters)),
        navigation=tuple(_name(package, items[i]) for i in (*navigation, *filter(None, [old])) if i in items),
        title=clean_title(next((e.text or "" for e in root.iter() if local(e) == "title"), "")),
    )


def _is_chapter(item: Element) -> bool:
    return (attribute(item, "media-type") or "").strip().lower() in _CHAPTERS


def _name(package: str, item: Element) -> str:
    return resolved(package, attribute(item, "href") or "")


def _chapter(archive: Archive, name: str) -> Content:
    page = _as_html(archive.read(name))
    if not _has_words(page):  # a cover or a picture, which as a web page would be an error
        return Content("")
    try:
        # What frames a web page is a part of a book: notes are asides, a chapter's title stands in its header.
        return read_html(page, framed=False)
    except ReadError as error:
        return Content("", warnings=(str(error),))


def _has_words(page: bytes) -> bool:
    body = LexborHTMLParser(page.decode("utf-8-sig")).body
    return body is not None and bool(body.text(strip=True))


def _as_html(data: bytes) -> bytes:
    """XHTML as HTML in UTF-8."""
    declared = _DECLARED.match(data)
    text = decode(data, declared=declared.group(1).decode("ascii") if declared else None).text
    # The mark goes before whatever encoding the page declares.
    return codecs.BOM_UTF8 + with_end_tags(text).encode("utf-8", "replace")
