"""What lies over a sheet: the text boxes and the titles of charts; remarks and descriptions of pictures are counted."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import relations
from m3rag.reading.office_charts import chart_titles
from m3rag.reading.xml_tree import attribute, local, parse_part


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


def read_overlay(archive: Archive, sheet: str) -> Overlay:
    """Read what lies over a sheet.

    Args:
        archive: The workbook.
        sheet: The part that holds the sheet.
    """
    found = Overlay([])
    for comments in _related(archive, sheet, "comments"):
        found.comments += sum(1 for e in parse_part(archive, comments).iter() if local(e) == "comment")
    for drawing in _related(archive, sheet, "drawing"):
        root = parse_part(archive, drawing)
        found.described += sum(bool((attribute(e, "descr") or "").strip()) for e in root.iter() if local(e) == "cNvPr")
        found.lines += [line for paragraph in root.iter() if (line := _line(paragraph))]
        # What charts plot stands in the cells.
        for chart in _related(archive, drawing, "chart"):
            found.lines += chart_titles(parse_part(archive, chart))
    return found


def _related(archive: Archive, part: str, kind: str) -> list[str]:
    targets = (r.target for r in relations(archive, part).values() if r.kind == kind)
    return [found for target in targets if (found := archive.find(target))]


def _line(paragraph: Element) -> str:
    if local(paragraph) != "p":
        return ""
    return " ".join("".join(e.text or "" for e in paragraph.iter() if local(e) == "t").split())
