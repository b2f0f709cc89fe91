"""PPTX: a slide is a page; its title is a heading, its notes follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import Relation, core_title, described, diagram_lines, main_part, relations
from m3rag.reading.content import Content
from m3rag.reading.docx_inline import alternative
from m3rag.reading.joining import Part, join
from m3rag.reading.layout import Layout
from m3rag.reading.office_charts import chart_lines
from m3rag.reading.office_math import is_structure, written
from m3rag.reading.scripts import lowered, raised, settled
from m3rag.reading.xml_tree import attribute, child, local, parse_part
from m3rag.types import Page

_TITLES = ("title", "ctrTitle")
# Dates and numbers stand on each slide, and on the notes' page the slide itself.
_REPEATED = ("dt", "sldNum", "sldImg", "hdr")


def read_pptx(data: bytes) -> Content:
    """Read a presentation.

    Args:
        data: The file's bytes.

    Returns:
        The slides' texts joined by a blank line, each a page with the number of its place; on each
        the title as a heading, then the other shapes, table rows as `a | b`, SmartArt, what charts plot, and the
        notes. Slides that are hidden from the show are empty pages and named in the warnings.

    Raises:
        ReadError: The file is damaged, encrypted, or packed or declared in a way that is not safe.
    """
    archive = Archive(data)
    deck = _Deck(archive)
    slides = list(_slides(archive, main_part(archive)))
    joined = join([deck.slide(part) for part in slides])
    pages = tuple(Page(number, start, end) for number, (start, end) in enumerate(joined.spans, 1))
    return Content(
        joined.text,
        title=core_title(archive),
        pages=pages,
        headings=joined.headings,
        warnings=(*_warnings(slides, deck.hidden), *described(deck.described)),
    )


def _slides(archive: Archive, presentation: str) -> Iterator[str]:
    """The slides' parts in the order of the show; empty for one that is missing."""
    known = relations(archive, presentation)
    listed = child(parse_part(archive, presentation), "sldIdLst")
    for entry in listed if listed is not None else ():
        # The number of the slide is called `id` too, without a namespace.
        reference = next((v for k, v in entry.attrib.items() if k.endswith("}id")), "")
        relation = known.get(reference)
        yield (archive.find(relation.target) or "") if relation is not None else ""


def _warnings(slides: list[str], hidden: set[str]) -> Iterator[str]:
    for what, parts in (("hidden from the show and left out", hidden), ("missing from the file", {""})):
        numbers = [str(number) for number, part in enumerate(slides, 1) if part in parts]
        if numbers:
            yield f"slide{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} {what}"


class _Deck:
    """Reads slides one after the other; a footer is read where it first stands."""

    def __init__(self, archive: Archive) -> None:
        self.hidden: set[str] = set()
        self.described = 0  # pictures with a description that is not shown
        self._archive = archive
        self._footers: set[str] = set()
        self._drawn: set[str] = set()  # the parts of charts and SmartArt so far

    def slide(self, part: str) -> Part:
        """The text of a slide with its notes."""
        if not part:
            return Part("")
        root = parse_part(self._archive, part)
        if attribute(root, "show") in ("0", "false"):
            self.hidden.add(part)
            return Part("")
        layout, known = Layout(), relations(self._archive, part)
        shapes = list(_shapes(child(root, "cSld", "spTree")))
        self.described += sum(bool((attribute(e, "descr") or "").strip()) for e in root.iter() if local(e) == "cNvPr")
        for title in sorted(shapes, key=lambda shape: _placeholder(shape) not in _TITLES):
            self._shape(title, layout, known)
        notes = next((r.target for r in known.values() if r.kind == "notesSlide"), "")
        if self._archive.find(notes) is not None:
            for shape in _shapes(child(parse_part(self._archive, notes), "cSld", "spTree")):
                self._shape(shape, layout, {})
        return Part(layout.text, tuple(layout.headings))

    def _shape(self, shape: Element, layout: Layout, known: dict[str, Relation]) -> None:
        kind = _placeholder(shape)
        if kind in _REPEATED:
            return
        layout.end_block(2)
        if kind == "ftr":
            text = "".join(e.text or "" for e in shape.iter() if local(e) == "t")
            if text in self._footers:
                return
            self._footers.add(text)
        if kind in _TITLES:
            layout.open_heading(1)
            _paragraphs(child(shape, "txBody"), layout)
            layout.close_heading(1)
        else:
            _paragraphs(child(shape, "txBody"), layout)
        table = child(shape, "graphic", "graphicData", "tbl")
        for row in table if table is not None else ():
            if local(row) == "tr":
                _row(row, layout)
        for name, reference, lines in (("relIds", "dm", diagram_lines), ("chart", "id", chart_lines)):
            drawing = child(shape, "graphic", "graphicData", name)
            relation = known.get(attribute(drawing, reference) or "") if drawing is not None else None
            part = self._archive.find(relation.target) if relation is not None else None
            # Named many times, a small file would become a large text.
            if part is not None and part not in self._drawn:
                self._drawn.add(part)
                for line in lines(self._archive, part):
                    layout.add(line)
                    layout.end_block(1)
        layout.end_block(2)


def _shapes(tree: Iterable[Element] | None) -> Iterator[Element]:
    """The visible shapes in their order, those of groups one by one."""
    for element in tree if tree is not None else ():
        name = local(element)
        if any(attribute(e, "hidden") in ("1", "true") for own in element for e in own if local(e) == "cNvPr"):
            continue
        if name == "grpSp":
            yield from _shapes(element)
        elif name == "AlternateContent":
            yield from _shapes(alternative(element))
        elif name in ("sp", "cxnSp", "graphicFrame"):
            yield element


def _placeholder(shape: Element) -> str:
    """What the shape holds by its layout, such as `title`; empty for a shape of its own."""
    for properties in shape:
        found = child(properties, "nvPr", "ph")
        if found is not None:
            return attribute(found, "type") or "obj"
    return ""


def _row(row: Element, layout: Layout) -> None:
    layout.open_row()
    for cell in row:
        if local(cell) == "tc":
            layout.open_cell()
            _paragraphs(child(cell, "txBody"), layout)
    layout.close_row()


def _paragraphs(body: Element | None, layout: Layout) -> None:
    for paragraph in body if body is not None else ():
        if local(paragraph) != "p":
            continue
        for number, line in enumerate(settled("".join(_pieces(paragraph))).split("\n")):
            if number:
                layout.end_block(1)
            layout.add(line)
        layout.end_block(1)


def _pieces(elements: Iterable[Element]) -> Iterator[str]:
    for inner in elements:
        name = local(inner)
        if name == "t":
            yield inner.text or ""
        elif name == "br":
            yield "\n"
        elif name == "AlternateContent":
            yield from _pieces(alternative(inner))
        elif name == "r":
            yield _raised(inner)("".join(_pieces(inner)))
        elif is_structure(inner):
            yield written(inner, lambda part: "".join(_pieces(part)))
        elif name != "fld" or (attribute(inner, "type") or "") != "slidenum":
            yield from _pieces(inner)


def _raised(run: Element) -> Callable[[str], str]:
    """How the text of a run is written, by thousandths that it stands above or below the line."""
    properties = child(run, "rPr")
    baseline = attribute(properties, "baseline") or "" if properties is not None else ""
    number = baseline.rstrip("%0.")
    return lowered if number.startswith("-") else raised if number else str
