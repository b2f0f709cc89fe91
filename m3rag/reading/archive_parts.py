"""Office Open XML packages (ECMA-376 Part 2): which part refers to which, and the package's title."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.xml_tree import attribute, local, parse_part

# What programs write where nobody gave a title.
_JUNK_TITLE = re.compile(
    r"(?:untitled|title|document|presentation|powerpoint presentation|microsoft (?:word|powerpoint|excel)\b.*"
    r"|\S*\.(?:docx?|pptx?|xlsx?|odt|rtf)|[\W\d_]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A reference of one part to another.

    Attributes:
        kind: The last word of its type, such as `slide` or `footnotes`.
        target: The part's name in the archive; empty for what lies outside.
    """

    kind: str
    target: str


def relations(archive: Archive, part: str) -> dict[str, Relation]:
    """The references of a part by their id, in the order of the file.

    Args:
        archive: The package.
        part: The part that refers; empty for the package itself.

    Returns:
        None of them need exist; an empty dictionary for a part without references.
    """
    folder, name = posixpath.split(part)
    listing = posixpath.join(folder, "_rels", f"{name}.rels")
    if archive.find(listing) is None:
        return {}
    found: dict[str, Relation] = {}
    for element in parse_part(archive, listing):
        external = attribute(element, "TargetMode") == "External"
        target = unquote(attribute(element, "Target") or "")
        path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
        kind = (attribute(element, "Type") or "").rpartition("/")[2]
        found[attribute(element, "Id") or ""] = Relation(kind, "" if external else path)
    return found


def related(archive: Archive, part: str, kind: str) -> str | None:
    """The first existing part of a kind that a part refers to; None where there is none."""
    targets = (r.target for r in relations(archive, part).values() if r.kind == kind)
    return next((found for target in targets if (found := archive.find(target))), None)


def main_part(archive: Archive) -> str:
    """The part that holds the document itself.

    Raises:
        ReadError: The package names none, or it is missing.
    """
    found = related(archive, "", "officeDocument")
    if found is None:
        raise ReadError("is damaged: no main part is named in it; save it again with the program that made it")
    return found


def core_title(archive: Archive) -> str:
    """The title in the package's properties; empty where nobody gave one."""
    part = related(archive, "", "core-properties")
    if part is None:
        return ""
    return clean_title(next((e.text or "" for e in parse_part(archive, part) if local(e) == "title"), ""))


def clean_title(raw: str) -> str:
    """A title on one line; empty for what a program put there by itself."""
    title = " ".join(raw.split())
    return "" if _JUNK_TITLE.fullmatch(title) else title


def diagram_lines(archive: Archive, part: str) -> list[str]:
    """The texts of a SmartArt diagram's data, a point a line."""
    lines = []
    for point in parse_part(archive, part).iter():
        if local(point) == "pt":
            line = "".join(e.text or "" for e in point.iter() if local(e) == "t")
            if line.strip():
                lines.append(line)
    return lines


def commented(number: int) -> Iterator[str]:
    """A warning if somebody made remarks on the document."""
    if number:
        yield f"{number} comment{'s' if number > 1 else ''} left out: they are not part of the text"


def described(number: int) -> Iterator[str]:
    """A warning if pictures have descriptions: nobody sees them on the page."""
    if number:
        yield f"the description{'s' if number > 1 else ''} of {number} picture{'s' if number > 1 else ''} left out"
