"""What reads badly in halves: tables, lists and code, as readers and Markdown write them."""

from __future__ import annotations

import re
from typing import Literal

Span = tuple[int, int]

LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ITEM = re.compile(r"[ \t]*(?:[-*•‣·▪–+]|\d{1,3}[.)])[ \t]")

Kind = Literal["row", "item", "more", "blank", "fence", "plain"]


def solid_blocks(text: str) -> list[Span]:
    """Find tables, lists and fenced code.

    A table is two lines or more with `|` or a tab between cells; a list is two items or more, with the
    lines that go on below them; code stands between fences, or from one to the text's end.

    Args:
        text: The whole text.

    Returns:
        Half-open character spans in order, without overlap, each of whole lines.
    """
    blocks: list[Span] = []
    kind, start, end, parts, fence = "plain", 0, 0, 0, ""

    def close() -> None:
        if parts > 1 or kind == "fence":
            blocks.append((start, end))

    for match in LINE.finditer(text):
        line = match[0]
        if kind == "fence":
            end = match.end()
            if _closes(line, fence):
                close()
                kind, parts = "plain", 0
            continue
        found = _kind(line)
        if found == "blank" and kind == "item":
            continue  # an item may follow
        if found == "plain" and kind == "item" and end == match.start():
            found = "more"  # a line wrapped below its item
        if found == "more" and kind == "item":
            end = match.end()
        elif found == kind and kind in {"row", "item"}:
            end, parts = match.end(), parts + 1
        else:
            close()
            kind, start, end, parts = found, match.start(), match.end(), 1
            opened = FENCE.match(line)
            fence = opened[1] if opened else ""
    if kind in {"row", "item", "fence"}:
        close()
    return blocks


def _kind(line: str) -> Kind:
    stripped = line.strip()
    if not stripped:
        return "blank"
    if FENCE.match(line):
        return "fence"
    if "|" in stripped[:-1] or "\t" in stripped:
        return "row"
    if ITEM.match(line):
        return "item"
    return "more" if line[0] in " \t" else "plain"


def _closes(line: str, fence: str) -> bool:
    marks = line.strip()
    return len(marks) >= len(fence) and set(marks) == {fence[0]}
