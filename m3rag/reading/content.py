"""What a reader of one format gives, before the registry makes a `Document` of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from m3rag.types import Heading, Metadata, Page

READING_VERSION = 4
"""Raised whenever the same bytes would give another text, so that documents are read again."""


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a file and what stands where in it.

    Attributes:
        text: As the file has it; pages and headings are spans of it. The registry removes hidden
            characters (see `hygiene`), moves the spans and tells how many there were.
        title: The format's own title; empty where it has none.
        pages: In order, those without text as empty spans; empty for formats without pages.
        headings: In order of position.
        metadata: JSON values.
        warnings: What could not be taken over.
    """

    text: str
    title: str = ""
    pages: tuple[Page, ...] = ()
    headings: tuple[Heading, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


Reader: TypeAlias = Callable[..., Content]
"""Bytes in, `Content` out; raises `ReadError` with what is wrong and the remedy, without the path.

One whose format says `takes_password` is called with `password=`, a str or None.
"""
