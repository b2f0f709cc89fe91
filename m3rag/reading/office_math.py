"""Equations of Office (ECMA-376 Part 1, 22.1) in a line of text: `1/25`, `x²`, `√(x+1)`, `∑_(i=1)ⁿ`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element

from m3rag.reading.scripts import fraction, grouped, index, power
from m3rag.reading.xml_tree import attribute, child, local

_MATHS = (
    "{http://schemas.openxmlformats.org/officeDocument/2006/math}",
    "{http://purl.oclc.org/ooxml/officeDocument/math}",
)
_STRUCTURES = frozenset({
    "f", "sSup", "sSub", "sSubSup", "sPre", "limLow", "limUpp", "nary", "rad", "d", "func", "m", "mr", "eqArr",
})  # fmt: skip
MAX_NESTED = 100
"""Elements within each other that an equation is read by; a deeper one, which nobody wrote, is its plain texts."""

_PARTS = frozenset({"e", "num", "den", "sub", "sup", "deg", "lim", "fName", "mr"})


def is_structure(element: Element) -> bool:
    """Whether an element is a part of an equation that says more than the texts in it."""
    return element.tag.startswith(_MATHS) and local(element) in _STRUCTURES


def written(element: Element, text: Callable[[Iterable[Element]], str]) -> str:
    """A structure as text.

    Args:
        element: One that `is_structure`.
        text: Gives the text of elements within it.
    """
    if _is_deep(element):
        return "".join(e.text or "" for e in element.iter() if local(e) == "t")
    return _line(element, text)


def _line(element: Element, text: Callable[[Iterable[Element]], str]) -> str:
    parts = [part for part in element if local(part) in _PARTS]
    texts = [(local(part), text((part,) if is_structure(part) else part)) for part in parts]
    part = dict(reversed(texts))
    base, name = part.get("e", ""), local(element)
    if name == "f":
        return fraction(part.get("num", ""), part.get("den", ""))
    if name == "rad":
        return f"{power(part.get('deg', ''))}√{grouped(base)}"
    if name == "func":
        return f"{part.get('fName', '')} {base}"
    if name == "d":
        between = _sign(element, "sepChr", "|").join(inner for _, inner in texts)
        return f"{_sign(element, 'begChr', '(')}{between}{_sign(element, 'endChr', ')')}"
    if name in ("m", "mr", "eqArr"):
        return (" " if name == "mr" else "; ").join(inner for _, inner in texts)
    lowered = index(part.get("lim" if name == "limLow" else "sub", ""))
    raised = power(part.get("lim" if name == "limUpp" else "sup", ""))
    return f"{_sign(element, 'chr', '∫')}{lowered}{raised} {base}" if name == "nary" else f"{base}{lowered}{raised}"


def _is_deep(element: Element) -> bool:
    level = [element]
    for _ in range(MAX_NESTED):
        level = [inner for outer in level for inner in outer]
        if not level:
            return False
    return True


def _sign(element: Element, name: str, default: str) -> str:
    """A character that a structure names in its properties; an empty one is none."""
    found = child(element, f"{local(element)}Pr", name)
    return default if found is None else attribute(found, "val") or ""
