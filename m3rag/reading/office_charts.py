"""Charts of Office (ECMA-376 Part 1, 21.2) as text: their titles and what they plot."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from m3rag.reading.archive import Archive
from m3rag.reading.xlsx_values import meaning, shown
from m3rag.reading.xml_tree import attribute, child, local, parse_part


def chart_lines(archive: Archive, part: str) -> list[str]:
    """A chart's title, those of its axes, and a line for each category: `North | Revenue: 19.2 | Cost: 7`."""
    root = parse_part(archive, part)
    return [*chart_titles(root), *_plotted(root)]


def chart_titles(root: Element) -> list[str]:
    """The titles that somebody wrote on a chart, each on a line."""
    titles = (e for e in root.iter() if local(e) == "title")
    lines = (" ".join("".join(t.text or "" for t in title.iter() if local(t) == "t").split()) for title in titles)
    return [line for line in lines if line]


def _plotted(root: Element) -> Iterator[str]:
    labels: dict[str, str] = {}
    rows: dict[str, list[str]] = {}
    apart: list[str] = []
    for series in (e for e in root.iter() if local(e) == "ser"):
        name = " ".join(_points(series, "tx").values())
        own = _points(series, "cat", "xVal")
        alike = all(labels.get(at, label) == label for at, label in own.items())
        if alike:
            labels.update(own)
        for at, value in _points(series, "val", "yVal").items():
            said = f"{name}: {value}" if name else value
            if alike:
                rows.setdefault(at, []).append(said)
            else:  # points of their own, as in a scatter chart
                apart.append(f"{own[at]} | {said}" if own.get(at) else said)
    for at, values in rows.items():
        yield " | ".join([labels[at], *values] if labels.get(at) else values)
    yield from apart


def _points(series: Element, *names: str) -> dict[str, str]:
    """The values that a chart keeps of the cells that it shows, by their place; of several levels the innermost."""
    found: dict[str, str] = {}
    source = next((e for e in series if local(e) in names), None)
    for cache in source.iter() if source is not None else ():
        if local(cache) not in ("numCache", "strCache", "numLit", "strLit", "lvl"):
            continue
        code = child(cache, "formatCode")
        format_meaning = meaning(0, (code.text or "") if code is not None else "")
        for point in cache:
            value = child(point, "v") if local(point) == "pt" else None
            if value is not None:
                text = " ".join((value.text or "").split())
                said = shown(text, format_meaning, from_1904=False) if local(cache).startswith("num") else text
                found.setdefault(attribute(point, "idx") or "", said)
    return found
