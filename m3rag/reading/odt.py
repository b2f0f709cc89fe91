"""OpenDocument: texts (ODT), sheets (ODS) and slides (ODP), told apart by what their body holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import clean_title, commented, described
from m3rag.reading.content import Content
from m3rag.reading.joining import Part, join
from m3rag.reading.layout import Layout
from m3rag.reading.odt_blocks import Blocks
from m3rag.reading.odt_sheets import read_sheets
from m3rag.reading.odt_styles import Styles
from m3rag.reading.xml_tree import attribute, child, local, parse_part
from m3rag.types import Page

# What stands on every slide, and on a page of notes besides them.
_REPEATED = frozenset({"header", "footer", "date-time", "page-number", "page"})


def read_odf(data: bytes) -> Content:
    """Read an OpenDocument file.

    Args:
        data: The file's bytes.

    Returns:
        For a text: headings, paragraphs, table rows as `a | b`; tracked insertions in, deletions
        and hidden text out; notes and boxes after the paragraph they are anchored in; page
        headers first and footers last, each once; comments, descriptions of pictures and embedded formulas
        and charts are told in the warnings. For sheets and slides as for XLSX and PPTX.

    Raises:
        ReadError: The file is damaged, encrypted, of another kind (a drawing, a formula), or packed
            or declared in a way that is not safe.
    """
    archive = Archive(data)
    _refuse_encrypted(archive)
    content = parse_part(archive, "content.xml")
    common = parse_part(archive, "styles.xml") if archive.find("styles.xml") is not None else Element("none")
    styles, title = Styles((common, content)), _title(archive)
    holder = child(content, "body")
    body = next(iter(holder if holder is not None else ()), Element("file without a body"))
    kind = local(body)
    if kind == "text":
        found = _text(body, styles, common, title)
    elif kind == "spreadsheet":
        found = read_sheets(body, styles, title)
    elif kind == "presentation":
        found = _slides(body, styles, title)
    else:
        raise ReadError(f"is an OpenDocument {kind}, not a text, a spreadsheet or a presentation: export it as PDF")
    return replace(found, warnings=(*found.warnings, *_left_out(body)))


def _left_out(body: Element) -> Iterator[str]:
    kinds = Counter(map(local, body.iter()))
    yield from commented(kinds["annotation"])
    yield from described(kinds["desc"])
    if number := kinds["object"] + kinds["object-ole"]:
        yield f"{number} embedded object{'s' if number > 1 else ''} (formula, chart) left out: export the file as PDF"


def _refuse_encrypted(archive: Archive) -> None:
    manifest = archive.find("META-INF/manifest.xml")
    encrypted = archive.find("encrypted-package") is not None
    if manifest is not None and not encrypted:
        # Old writers name its document type, without entities.
        listed = parse_part(archive, manifest, doctype=True)
        encrypted = any(local(e) == "encryption-data" for e in listed.iter())
    if encrypted:
        raise ReadError("is encrypted and needs a password: save a copy without one")


def _title(archive: Archive) -> str:
    if archive.find("meta.xml") is None:
        return ""
    return clean_title(next((e.text or "" for e in parse_part(archive, "meta.xml").iter() if local(e) == "title"), ""))


def _text(body: Element, styles: Styles, common: Element, title: str) -> Content:
    blocks = Blocks(styles, Layout())
    _margins(common, "header", blocks)
    blocks.all(body)
    blocks.layout.end_block(2)
    _margins(common, "footer", blocks)
    told = (f"left out {styles.hidden} hidden passage{'s' if styles.hidden > 1 else ''}",) if styles.hidden else ()
    return Content(blocks.layout.text, title=title, headings=tuple(blocks.layout.headings), warnings=told)


def _margins(common: Element, which: str, blocks: Blocks) -> None:
    """Page headers or footers that say something, each text once."""
    shown: set[str] = set()
    for margin in common.iter():
        if local(margin) in (which, f"{which}-first", f"{which}-left"):
            text = _alone(margin, blocks.styles)
            if any(c.isalpha() for c in text) and text not in shown:
                shown.add(text)
                for line in text.split("\n"):
                    blocks.layout.add(line)
                    blocks.layout.end_block(1)
                blocks.layout.end_block(2)


def _alone(margin: Element, styles: Styles) -> str:
    blocks = Blocks(styles, Layout())
    blocks.one(margin)
    return blocks.layout.text


def _slides(body: Element, styles: Styles, title: str) -> Content:
    slides = [e for e in body if local(e) == "page"]
    hidden = [number for number, slide in enumerate(slides, 1) if styles.hides(slide)]
    joined = join([Part("") if styles.hides(slide) else _slide(slide, styles) for slide in slides])
    named = f"slide{'s' if len(hidden) > 1 else ''} {', '.join(map(str, hidden))} hidden from the show and left out"
    return Content(
        joined.text,
        title=title,
        pages=tuple(Page(number, start, end) for number, (start, end) in enumerate(joined.spans, 1)),
        headings=joined.headings,
        warnings=(named,) if hidden else (),
    )


def _slide(slide: Element, styles: Styles) -> Part:
    blocks = Blocks(styles, Layout())
    # As in PPTX the title comes first and the notes last, wherever they stand in the file.
    for shape in sorted(slide, key=lambda e: (local(e) == "notes", attribute(e, "class") != "title")):
        blocks.layout.end_block(2)
        inner = shape if local(shape) == "notes" else (shape,)
        blocks.all(e for e in inner if attribute(e, "class") not in _REPEATED)
    return Part(blocks.layout.text, tuple(blocks.layout.headings))
