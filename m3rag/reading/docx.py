"""DOCX: what Word shows of a document once all tracked changes are accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import commented, core_title, described, diagram_lines, main_part, related, relations
from m3rag.reading.content import Content
from m3rag.reading.docx_inline import InlineReader, alternative
from m3rag.reading.docx_merged import Merged
from m3rag.reading.docx_styles import Styles, read_styles, switch
from m3rag.reading.layout import Layout
from m3rag.reading.office_charts import chart_lines
from m3rag.reading.office_tables import lay_out_table
from m3rag.reading.xml_tree import attribute, child, local, parse_part, stream_part

# Transitional and strict documents.
_BODIES = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}body",
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}body",
)
_WRAPPERS = frozenset({"sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag"})


def read_docx(data: bytes) -> Content:
    """Read a Word document: paragraphs, headings by their styles, table rows as `a | b`.

    Tracked insertions are in, deletions and hidden text out. Text boxes, notes, SmartArt and charts follow
    the paragraph they are anchored in; a section's page header stands before it and its footer
    after it, each text once.

    Args:
        data: The file's bytes.

    Returns:
        The text; comments, descriptions of pictures and embedded documents, which are not part of it, are told in
        the warnings.

    Raises:
        ReadError: The file is damaged, encrypted, or packed or declared in a way that is not safe.
    """
    archive = Archive(data)
    document = main_part(archive)
    sections = _sections(archive, document)
    body = _Body(archive, document, read_styles(archive, document), Layout())
    body.margins(sections[0].headers if sections else ())
    at = 0
    for block in stream_part(archive, document, within=_BODIES):
        body.block(block)
        ended = sum(1 for e in block.iter() if local(e) == "sectPr")
        for section in range(at, min(at + ended, len(sections))):
            body.margins(sections[section].footers)
            if section + 1 < len(sections):
                body.margins(sections[section + 1].headers)
        at += ended
    return Content(
        body.layout.text,
        title=core_title(archive),
        headings=tuple(body.layout.headings),
        warnings=(*_comments(archive, document), *body.warnings, *body.hidden),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """Ids of the references to a section's page headers and footers."""

    headers: tuple[str, ...]
    footers: tuple[str, ...]


def _sections(archive: Archive, document: str) -> list[_Section]:
    settings = related(archive, document, "settings")
    even = settings is not None and bool(switch(parse_part(archive, settings), "evenAndOddHeaders"))
    found = []
    for block in stream_part(archive, document, within=_BODIES):
        for section in block.iter():
            if local(section) == "sectPr":
                kinds = ("default", *(["even"] if even else []), *(["first"] if switch(section, "titlePg") else []))
                found.append(_Section(_ids(section, "headerReference", kinds), _ids(section, "footerReference", kinds)))
    return found


def _ids(section: Element, name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    found = [e for e in section if local(e) == name and (attribute(e, "type") or "default") in kinds]
    return tuple(attribute(e, "id") or "" for e in found)


def _comments(archive: Archive, document: str) -> Iterator[str]:
    part = related(archive, document, "comments")
    number = sum(1 for e in parse_part(archive, part) if local(e) == "comment") if part else 0
    return commented(number)


class _Body:
    """Lays out blocks of one part, the body or a header, with what hangs on them."""

    def __init__(self, archive: Archive, part: str, styles: Styles, layout: Layout) -> None:
        self.layout = layout
        self.warnings: list[str] = []
        self._archive = archive
        self._styles = styles
        self._relations = relations(archive, part)
        self._inline = InlineReader(styles)
        self._notes: dict[str, dict[str, Element]] = {}
        self._cited: list[tuple[str, str]] = []
        self._shown: set[str] = set()  # the headers and footers so far
        self._drawn: set[str] = set()  # the parts of those, and of charts and SmartArt
        self._in_list = self._merging = False

    @property
    def hidden(self) -> Iterator[str]:
        """A warning if text was left out that Word does not show."""
        if number := self._inline.hidden:
            yield f"left out {number} hidden passage{'s' if number > 1 else ''}"
        yield from described(self._inline.described)

    def margins(self, ids: Sequence[str]) -> None:
        """Lay out page headers or footers that say something not yet said."""
        for reference in ids:
            relation = self._relations.get(reference)
            part = self._archive.find(relation.target) if relation is not None else None
            if part is None or part in self._drawn:
                continue
            self._drawn.add(part)
            margin = _Body(self._archive, part, self._styles, Layout())
            margin._drawn = self._drawn
            margin._blocks(parse_part(self._archive, part))
            text = margin.layout.text
            if any(c.isalpha() for c in text) and text not in self._shown:
                self._shown.add(text)
                self.layout.end_block(2)
                self._lines(text)
                self.layout.end_block(2)

    def block(self, element: Element) -> None:
        """Lay out a paragraph, a table, or what wraps them."""
        name = local(element)
        if name == "p":
            self._paragraph(element)
        elif name == "tbl":
            self._table(element)
        elif name == "AlternateContent":
            self._blocks(alternative(element))
        elif name in _WRAPPERS:
            self._blocks(element)
        elif name == "altChunk":
            self.warnings.append("an embedded document was left out: open and save the file in Word to merge it")
        if not self.layout.in_row:
            self._footnotes()

    def _paragraph(self, element: Element) -> None:
        properties = child(element, "pPr")
        inline = self._inline.read(element)
        text = "".join(inline.pieces)
        level = self._styles.level(properties)
        listed = self._styles.listed(properties) and not level
        if not self._merging:
            self.layout.end_block(1 if listed and self._in_list else 2)
        if level and not self.layout.in_row and text.strip():
            self.layout.open_heading(level)
            self._lines(text)
            self.layout.close_heading(level)
        else:
            self._lines(text)
        mark = child(properties, "rPr") if properties is not None else None
        # A deleted paragraph mark joins the paragraph with the next one.
        self._merging = mark is not None and child(mark, "del") is not None
        self._in_list = listed
        if not self._merging:
            self.layout.end_block(1 if listed else 2)
        self._cited += inline.notes
        self._anchored(inline.boxes, inline.drawings)

    def _lines(self, text: str) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self.layout.end_block(1)
            self.layout.add(line)

    def _anchored(self, boxes: Sequence[Element], drawings: Sequence[str]) -> None:
        for box in boxes:
            self.layout.end_block(2)
            self._blocks(box)
        for reference in drawings:
            relation = self._relations.get(reference)
            part = self._archive.find(relation.target) if relation is not None else None
            # Named many times, a small file would become a large text.
            if relation is not None and part is not None and part not in self._drawn:
                self._drawn.add(part)
                lines = chart_lines if relation.kind == "chart" else diagram_lines
                self.layout.end_block(2)
                self._lines("\n".join(lines(self._archive, part)))
                self.layout.end_block(2)

    def _table(self, table: Element) -> None:
        merged = Merged((row, list(_within(row, "tc"))) for row in _within(table, "tr"))
        lay_out_table(
            merged.rows(),
            self.layout,
            cell=self._blocks,
            is_block=self._is_block,
            merged=merged,
            between=self._footnotes,
        )

    def _is_block(self, element: Element) -> bool:
        return local(element) == "tbl" or (local(element) == "pPr" and bool(self._styles.level(element)))

    def _blocks(self, parent: Iterable[Element]) -> None:
        for block in parent:
            self.block(block)

    def _footnotes(self) -> None:
        cited, self._cited = self._cited, []
        for kind, number in cited:
            if kind not in self._notes:
                part = next((r.target for r in self._relations.values() if r.kind == f"{kind}s"), "")
                found = parse_part(self._archive, part) if self._archive.find(part) else ()
                self._notes[kind] = {attribute(e, "id") or "": e for e in found if local(e) == kind}
            self.layout.end_block(2)
            self._blocks(self._notes[kind].pop(number, ()))


def _within(element: Element, name: str) -> Iterator[Element]:
    """The rows of a table or the cells of a row, in content controls or not, without deleted ones."""
    for inner in element:
        if local(inner) == name:
            properties = child(inner, f"{name}Pr")
            if properties is None or (child(properties, "del") is None and child(properties, "cellDel") is None):
                yield inner
        elif local(inner) in _WRAPPERS:
            yield from _within(inner, name)
