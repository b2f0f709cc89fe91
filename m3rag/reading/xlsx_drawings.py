"""What lies over a sheet: the text boxes and the titles of charts; remarks and descriptions of pictures are counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import relations
from m3rag.reading.office_charts import chart_titles
from m3rag.reading.xml_tree import attribute, child, local, parse_part


@dataclass(slots=True)
class Overlay:
    """What lies over one sheet.

    Attributes:
        lines: The texts.
        comments: How many cells have a remark.
        described: How many pictures have a description, which nobody sees.
    """

    lines: list[str]
    comments: int = 0
    described: int = 0


def read_overlay(archive: Archive, sheet: str, done: set[str]) -> Overlay:
    """Read what lies over a sheet.

    Args:
        archive: The workbook.
        sheet: The part that holds the sheet.
        done: The parts read so far, which are not read again; those read now are added.
    """
    found = Overlay([])
    for comments in _related(archive, sheet, "comments", done):
        found.comments += sum(1 for e in parse_part(archive, comments).iter() if local(e) == "comment")
    for drawing in _related(archive, sheet, "drawing", done):
        seen = list(_seen(parse_part(archive, drawing)))
        found.described += sum(bool((attribute(e, "descr") or "").strip()) for e in seen if local(e) == "cNvPr")
        found.lines += [line for paragraph in seen if (line := _line(paragraph))]
        # What charts plot stands in the cells.
        shown = {attribute(e, "id") or "" for e in seen if local(e) == "chart"}
        for chart in _related(archive, drawing, "chart", done, among=shown):
            found.lines += chart_titles(parse_part(archive, chart))
    return found


def _related(archive: Archive, part: str, kind: str, done: set[str], *, among: set[str] | None = None) -> Iterator[str]:
    for reference, relation in relations(archive, part).items():
        found = archive.find(relation.target) if relation.kind == kind else None
        if found and found not in done and (among is None or reference in among):
            done.add(found)
            yield found


def _seen(root: Element) -> Iterator[Element]:
    """The elements that Excel shows, without recursion: of alternatives the first.

    What it writes for older programs says nothing, or the same once more.
    """
    left = [root]
    while left:
        element = left.pop()
        if any(attribute(e, "hidden") in ("1", "true") for own in element for e in own if local(e) == "cNvPr"):
            continue
        yield element
        inner = child(element, "Choice") if local(element) == "AlternateContent" else element
        left += reversed(inner if inner is not None else ())


def _line(paragraph: Element) -> str:
    if local(paragraph) != "p":
        return ""
    return " ".join("".join(e.text or "" for e in _seen(paragraph) if local(e) == "t").split())
