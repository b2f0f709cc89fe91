"""A workbook's parts: its sheets, the texts they share, the meaning of their formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.archive_parts import main_part, related, relations
from m3rag.reading.xlsx_values import Meaning, digits, meaning
from m3rag.reading.xml_tree import attribute, child, local, parse_part, stream_part

# Transitional and strict workbooks.
NAMESPACES = (
    "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}",
    "{http://purl.oclc.org/ooxml/spreadsheetml/main}",
)
_SHEETS = ("worksheet", "chartsheet")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
MAX_SHARED = 128 << 20  # bytes of the part with the shared texts, which are held in memory


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet's name, the part that holds it, and whether a person sees it."""

    name: str
    part: str
    visible: bool


class NumberFormat(NamedTuple):
    """What a format makes of a number, and to how many digits it fills it up."""

    meaning: Meaning
    digits: int


@dataclass(frozen=True, slots=True)
class Book:
    """A workbook.

    Attributes:
        sheets: In their order, without what is missing from the file.
        shared: The texts that cells refer to by number.
        formats: What the format of a cell's style makes of a number, by the style's number.
        from_1904: Whether days are counted from 1904.
    """

    sheets: tuple[Sheet, ...]
    shared: tuple[str, ...]
    formats: tuple[NumberFormat, ...]
    from_1904: bool


def read_book(archive: Archive) -> Book:
    """Read all of a workbook but its cells.

    Raises:
        ReadError: It is a binary workbook, damaged, or declared in a way that is not safe.
    """
    main = main_part(archive)
    if main.endswith(".bin"):
        raise ReadError("is a binary workbook (.xlsb): save it as .xlsx")
    root = parse_part(archive, main)
    properties = child(root, "workbookPr")
    return Book(
        sheets=_sheets(archive, main, root),
        shared=_shared(archive, main),
        formats=_formats(archive, main),
        from_1904=properties is not None and attribute(properties, "date1904") in ("1", "true"),
    )


def item_text(item: Element) -> str:
    """The text of a shared or inline string, without its phonetic guide."""
    return unescaped(
        "".join(
            e.text or ""
            for part in item
            if local(part) in ("t", "r")
            for e in ((part,) if local(part) == "t" else part)
            if local(e) == "t"
        )
    )


def unescaped(text: str) -> str:
    """A text with the characters that XML cannot hold, such as `_x000D_` (ECMA-376 Part 1, 22.9.2.19)."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _sheets(archive: Archive, main: str, root: Element) -> tuple[Sheet, ...]:
    known = relations(archive, main)
    listed = child(root, "sheets")
    found = []
    for entry in listed if listed is not None else ():
        reference = next((v for k, v in entry.attrib.items() if k.endswith("}id")), "")
        relation = known.get(reference)
        part = archive.find(relation.target) if relation is not None and relation.kind in _SHEETS else None
        if part is not None:
            visible = (attribute(entry, "state") or "visible") == "visible"
            found.append(Sheet(" ".join((attribute(entry, "name") or "").split()), part, visible))
    return tuple(found)


def _shared(archive: Archive, main: str) -> tuple[str, ...]:
    part = related(archive, main, "sharedStrings")
    if part is None:
        return ()
    if archive.size(part) > MAX_SHARED:
        raise ReadError(f"is too large: its texts inflate to {archive.size(part):,} bytes; split the workbook")
    return tuple(item_text(e) for e in stream_part(archive, part, within=[f"{n}sst" for n in NAMESPACES]))


def _formats(archive: Archive, main: str) -> tuple[NumberFormat, ...]:
    part = related(archive, main, "styles")
    if part is None:
        return ()
    root = parse_part(archive, part)
    formats, styles = child(root, "numFmts"), child(root, "cellXfs")
    codes = {
        attribute(e, "numFmtId"): attribute(e, "formatCode") or "" for e in (formats if formats is not None else ())
    }
    numbers = [attribute(e, "numFmtId") or "0" for e in (styles if styles is not None else ())]
    return tuple(
        NumberFormat(meaning(int(number), code), digits(code)) for number in numbers for code in [codes.get(number, "")]
    )
