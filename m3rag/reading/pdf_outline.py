"""The bookmarks of a PDF as headings, where their words stand on the page they lead to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import pypdfium2

from m3rag.types import Heading, Page

MAX_ENTRIES = 10_000
MAX_TITLE = 300  # characters
_WORD = re.compile(r"\w+")
_BETWEEN = r"[\W_]*?"
_NUMBERING = r"(?:[\W_]*[\dA-Za-z]{1,4}(?:\.[\dA-Za-z]{1,4})*[\W_]+)?"


class Entry(NamedTuple):
    """A bookmark: its words, its depth (1 is the outermost) and the page it leads to, from 0."""

    title: str
    level: int
    page: int


def outline_of(document: pypdfium2.PdfDocument) -> tuple[Entry, ...]:
    """The bookmarks that lead to a page, in order, at most 10,000 of them.

    Args:
        document: An open document.
    """
    found = []
    try:
        for mark in islice(document.get_toc(), MAX_ENTRIES):
            target = mark.get_dest()
            page = target.get_index() if target is not None else None
            title = " ".join(str(mark.get_title() or "").split())
            if page is not None and title and len(title) <= MAX_TITLE:
                found.append(Entry(title, mark.level + 1, page))
    except pypdfium2.PdfiumError:
        # A damaged outline costs the headings, which are no part of the text.
        return tuple(found)
    return tuple(found)


def headings_of(outline: Sequence[Entry], text: str, pages: Sequence[Page]) -> tuple[Heading, ...]:
    """Find the bookmarks in the text.

    Args:
        outline: In order.
        text: Of the document.
        pages: Its pages.

    Returns:
        A heading for each bookmark whose words, whatever stands between them, are whole lines of
        its page, a number before them included. In order, not overlapping.
    """
    found: dict[int, Heading] = {}
    done: dict[int, int] = {}  # where to go on searching on a page
    for entry in outline:
        words = _WORD.findall(entry.title)
        if not words or not 0 <= entry.page < len(pages):
            continue
        page = pages[entry.page]
        pattern = _BETWEEN.join(map(re.escape, words))
        source = rf"^[ \t]*{_NUMBERING}{pattern}[^\w\n]*$"
        # A running header has the words too, as a rule in capitals.
        match = next(
            filter(
                None,
                (
                    re.compile(source, flags).search(text, done.get(entry.page, page.start), page.end)
                    for flags in (re.MULTILINE, re.MULTILINE | re.IGNORECASE)
                ),
            ),
            None,
        )
        if match is not None:
            start, end = match.end() - len(match.group().lstrip()), match.start() + len(match.group().rstrip())
            found[start] = Heading(" ".join(text[start:end].split()), entry.level, start, end)
            done[entry.page] = end
    return tuple(found[start] for start in sorted(found))
