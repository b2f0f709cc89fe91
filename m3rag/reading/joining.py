"""One text of many parts (slides, sheets, chapters), with the span of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from m3rag.types import Heading

SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A part's text and the headings that are spans of it."""

    text: str
    headings: tuple[Heading, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """The whole text, the half-open span of each part in it, and all headings as spans of it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    headings: tuple[Heading, ...]


def join(parts: Iterable[Part]) -> Joined:
    """Join parts by a blank line.

    Args:
        parts: In order; those without text get an empty span.

    Returns:
        The text with one span for each part.
    """
    kept: list[str] = []
    spans: list[tuple[int, int]] = []
    headings: list[Heading] = []
    at = 0
    for part in parts:
        if part.text and kept:
            at += len(SEPARATOR)
        spans.append((at, at + len(part.text)))
        headings.extend(replace(h, start=h.start + at, end=h.end + at) for h in part.headings)
        if part.text:
            kept.append(part.text)
            at += len(part.text)
    return Joined(SEPARATOR.join(kept), tuple(spans), tuple(headings))
